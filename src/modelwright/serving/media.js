
// Models whose answers come whole: a picture, a recording or a text in; labels, boxes or a file out.

const MOST_BYTES = 20 * 2 ** 20;
const COLOURS = ["#1f5f5b", "#b3541e", "#5b3f8c", "#8c1d40", "#2f5d9e", "#5a6b1f"];

function whole(facts) {
  predicts = facts;
  $("dials").hidden = true;
  const files = facts.inputs.filter((kind) => kind === "image" || kind === "audio");
  $("attach").hidden = !files.length;
  // Browsers give a microphone to pages of https and of this machine alone.
  $("record").hidden = !(files.includes("audio") && navigator.mediaDevices && window.MediaRecorder);
  $("file").accept = files.map((kind) => `${kind}/*`).join(",");
  const what = files.includes("audio") ? "recording" : "picture";
  $("question").placeholder = files.length ? "or drop one here"
    : { "image/png": "Name what to draw", "audio/wav": "Write what to say" }[facts.makes] ?? "Ask anything";
  if (files.length) $("lead").textContent = $("record").hidden ? `Drop a ${what} here` : `Say something, or drop a ${what} here`;
  if (facts.makes === "image/png") $("lead").textContent = "What shall be drawn?";
  if (facts.makes === "audio/wav" && !files.length) $("lead").textContent = "What shall be said?";
}

function asURL(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Refusal(0, "The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

function player(url, type) {
  const element = document.createElement(type.startsWith("audio/") ? "audio" : "img");
  element.src = url;
  if (type.startsWith("audio/")) element.controls = true; else element.alt = "";
  return element;
}

// The boxes of an answer on the picture that was asked about.
async function outlined(picture, boxes) {
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  const size = Math.max(12, Math.round(canvas.width / 40));
  pen.font = `${size}px system-ui`;
  pen.lineWidth = Math.max(2, size / 6);
  const names = [...new Set(boxes.map((box) => box.label))];
  for (const box of boxes) {
    const colour = COLOURS[names.indexOf(box.label) % COLOURS.length];
    const title = `${box.label} ${(100 * box.score).toFixed(0)} %`;
    pen.strokeStyle = pen.fillStyle = colour;
    pen.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    const top = Math.max(0, box.top - 1.3 * size);
    pen.fillRect(box.left, top, pen.measureText(title).width + size / 2, 1.3 * size);
    pen.fillStyle = "#ffffff";
    pen.fillText(title, box.left + size / 4, top + size);
  }
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", boxes.map((box) => box.label).join(", "));
  return canvas;
}

function chances(probabilities) {
  const table = document.createElement("div");
  table.className = "chances";
  for (const [label, value] of Object.entries(probabilities).slice(0, 5)) {
    const name = document.createElement("span");
    const meter = document.createElement("meter");
    const number = document.createElement("span");
    name.textContent = label;
    meter.value = value;
    meter.setAttribute("aria-label", label);
    number.textContent = `${(100 * value).toFixed(1)} %`;
    table.append(name, meter, number);
  }
  return table;
}

async function answered(item, answer, picture) {
  const said = item.querySelector(".said");
  const boxes = answer.parts.filter((part) => part.type === "box" && part.score >= 0.5);
  render(said, answer.said);
  if (answer.file) said.append(player(`data:${answer.file.type};base64,${answer.file.b64}`, answer.file.type));
  if (answer.probabilities) said.append(chances(answer.probabilities));
  if (boxes.length && picture) said.prepend(await outlined(picture, boxes));
}

// Draws what a text names, and shows how it comes about.
async function drawn(item, prompt) {
  const said = item.querySelector(".said");
  const options = { method: "POST", signal: running.signal, headers: { "Content-Type": "application/json" } };
  options.body = JSON.stringify({ prompt, stream: true, partial_images: 3 });
  for await (const event of events(await ask("v1/images/generations", options))) {
    if (!item.isConnected) return;
    said.replaceChildren(player(`data:image/png;base64,${event.b64_json}`, "image/png"));
    if (event.type === "image_generation.completed") return;
  }
}

// Asks with a text or a file, and shows both; the caller has taken `running`.
async function predicted({ text = "", file = null }) {
  const began = performance.now();
  const asked = show("user", text);
  const item = show("assistant", "");
  item.classList.add("busy");
  $("question").value = "";
  grow();
  try {
    const options = { method: "POST", signal: running.signal };
    let picture = null;
    if (file) {
      if (file.size > MOST_BYTES) throw new Refusal(413, "The file is larger than 20 MB.");
      const shown = player(await asURL(file), file.type);
      asked.querySelector(".said").append(shown);
      if (shown.tagName === "IMG") picture = shown;
      options.body = new FormData();
      options.body.append("file", file);
    } else {
      options.headers = { "Content-Type": "application/json" };
      options.body = JSON.stringify({ inputs: [{ text }] });
    }
    if (predicts.makes === "image/png" && !file) {
      await drawn(item, text);
    } else if (predicts.makes === "audio/wav" && !file) {
      await spoken(item, text);
    } else {
      const { data } = await (await ask("predict", options)).json();
      if (!item.isConnected) return;
      await answered(item, data[0], picture);
    }
    if (!item.isConnected) return;
    note(item, `${((performance.now() - began) / 1000).toFixed(2)} s`);
    $("status").textContent = "The answer is complete.";
    $("scroll").scrollTop = $("scroll").scrollHeight;
  } catch (error) {
    asked.remove();
    item.remove();
    if (!$("question").value) $("question").value = text;
    grow();
    if (error.name !== "AbortError") complain(error.message);
  } finally {
    item.classList.remove("busy");
  }
}

async function sendFile(file) {
  if (running || !file || !predicts) return;
  running = new AbortController();
  busy(true);
  complain("");
  await predicted({ file });
  finish();
}

$("file").addEventListener("change", () => {
  sendFile($("file").files[0]);
  $("file").value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  $("scroll").addEventListener(kind, (event) => {
    if (!predicts || $("attach").hidden) return;
    event.preventDefault();
    $("scroll").classList.add("over");
  });
}
$("scroll").addEventListener("dragleave", () => $("scroll").classList.remove("over"));
$("scroll").addEventListener("drop", (event) => {
  event.preventDefault();
  $("scroll").classList.remove("over");
  sendFile(event.dataTransfer.files[0]);
});
ready();
connect().then((up) => { if (up) $("question").focus(); });
