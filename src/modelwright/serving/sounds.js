
// Sound: a microphone in, and speech that is heard while it is still being made.

const MICROPHONE_RATE = 16000;  // samples a second: enough for speech, a third of what cards give
const MOST_RECORDED = 600;      // seconds; as a file that is just below MOST_BYTES
const WAV_HEAD = 44;            // bytes before the samples
let recorder = null;            // the MediaRecorder at work

// A WAV file of one channel, of samples in 16 bits.
function wav(samples, rate) {
  const head = new DataView(new ArrayBuffer(WAV_HEAD));
  const write = (at, word) => [...word].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  write(0, "RIFF");
  head.setUint32(4, WAV_HEAD - 8 + samples.byteLength, true);
  write(8, "WAVEfmt ");
  head.setUint32(16, 16, true);        // bytes of what follows
  head.setUint16(20, 1, true);         // PCM
  head.setUint16(22, 1, true);         // channels
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true);  // bytes a second
  head.setUint16(32, 2, true);         // bytes of a sample of all channels
  head.setUint16(34, 16, true);        // bits
  write(36, "data");
  head.setUint32(40, samples.byteLength, true);
  return new File([head, samples], "recording.wav", { type: "audio/wav" });
}

// What the browser has recorded, in whatever it records in, as WAV: every server reads that.
async function recorded(pieces) {
  const context = new OfflineAudioContext(1, 1, MICROPHONE_RATE);
  const sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
  const values = sound.getChannelData(0);
  return wav(Int16Array.from(values, (v) => Math.max(-1, Math.min(1, v)) * 32767), MICROPHONE_RATE);
}

function recording(seconds) {
  const on = seconds !== null;
  $("record").textContent = on ? `Done, ${seconds} s` : "Record";
  $("record").setAttribute("aria-pressed", String(on));
  $("record").classList.toggle("stop", on);
}

async function record() {
  if (recorder) { recorder.stop(); return; }
  if (running) return;
  complain("");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    complain(error.name === "NotAllowedError" ? "This page may not use the microphone; the browser's settings for the page allow it."
      : "The browser finds no microphone that it can use.");
    return;
  }
  if (recorder) {  // a second press, while the browser asked for leave
    for (const track of stream.getTracks()) track.stop();
    return;
  }
  const pieces = [];
  let seconds = 0;
  recorder = new MediaRecorder(stream);
  recorder.thrown = false;
  const clock = setInterval(() => {
    seconds += 1;
    recording(seconds);
    if (seconds >= MOST_RECORDED) recorder.stop();
  }, 1000);
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.addEventListener("stop", async () => {
    const { thrown } = recorder;
    clearInterval(clock);
    for (const track of stream.getTracks()) track.stop();  // its light goes out
    recorder = null;
    recording(null);
    if (thrown) return;
    try {
      await sendFile(await recorded(pieces));
    } catch {
      complain("Nothing was recorded that the browser can read.");
    }
  });
  recording(0);
  recorder.start();
}

// Speaks a text: each piece is played when it has come, and a player keeps all of them.
async function spoken(item, text) {
  const options = { method: "POST", signal: running.signal, headers: { "Content-Type": "application/json" } };
  options.body = JSON.stringify({ model, input: text, stream_format: "sse" });
  const context = new AudioContext();
  const silence = () => { if (context.state !== "closed") context.close(); };
  const parts = [];
  let rate = 0, until = 0;
  try {
    for await (const event of events(await ask("v1/audio/speech", options))) {
      if (!item.isConnected) { silence(); return; }
      if (event.type === "speech.audio.done") break;
      const bytes = Uint8Array.from(atob(event.audio), (c) => c.charCodeAt(0));
      if (!rate) rate = new DataView(bytes.buffer).getUint32(24, true);
      const samples = new Int16Array(bytes.slice(parts.length ? 0 : WAV_HEAD).buffer);
      parts.push(samples);
      if (!samples.length) continue;
      const buffer = context.createBuffer(1, samples.length, rate);
      buffer.copyToChannel(Float32Array.from(samples, (v) => v / 32768), 0);
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(context.destination);
      until = Math.max(until, context.currentTime);
      source.start(until);
      until += buffer.duration;
    }
  } catch (error) {
    silence();
    throw error;
  }
  const whole = new Int16Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => { whole.set(part, at); return at + part.length; }, 0);
  const kept = player(await asURL(wav(whole, rate)), "audio/wav");
  kept.addEventListener("play", silence, { once: true });  // not twice at once
  setTimeout(silence, 1000 * (until - context.currentTime) + 500);
  item.querySelector(".said").replaceChildren(kept);
}

$("record").addEventListener("click", record);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !recorder) return;
  recorder.thrown = true;
  recorder.stop();
});
