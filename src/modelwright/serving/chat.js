"use strict";
const $ = (id) => document.getElementById(id);
const turns = [];          // the conversation as the server gets it
let model = null;          // its name, once the server has said it
let predicts = null;       // what it reads and makes, where its answers come whole
let running = null;        // the AbortController of the answer under way
let key = sessionStorage.getItem("modelwright-key") || "";

const GONE = "The server does not answer. Check that it is still running, then send again.";

// Errors the page can explain; anything else is shown as the server said it.
class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

function complain(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function reachable(up) {
  $("dot").className = up ? "dot up" : "dot down";
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    reachable(false);
    throw new Refusal(0, GONE);
  }
  reachable(true);
  if (response.ok) return response;
  let said = `The server answered with status ${response.status}.`;
  try { said = (await response.json()).error.message; } catch { /* not our kind of answer */ }
  if (response.status === 401) wantKey();
  throw new Refusal(response.status, sentence(said));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function wantKey() {
  $("key-form").hidden = false;
  $("key").focus();
}

async function connect() {
  try {
    const { data } = await (await ask("v1/models")).json();
    model = data[0].id;
    $("model").textContent = model;
    $("model").title = model;
    document.title = `${model} · modelwright`;
    if (data[0].predicts) whole(data[0].predicts);
    if (data[0].context_length) $("most").max = data[0].context_length;
    $("key-form").hidden = true;
    complain("");
    return true;
  } catch (error) {
    $("model").textContent = error.status === 401 ? "needs a key" : "not connected";
    complain(error.status === 401 && !key ? "This server needs an API key." : error.message);
    return false;
  }
}

// Text into nodes: ``` blocks and `code`; everything else stays plain text.
function render(target, text) {
  target.replaceChildren();
  text.split(/^```/m).forEach((part, i) => {
    if (i % 2) {
      const pre = document.createElement("pre");
      const code = document.createElement("code");
      code.textContent = part.replace(/^[\w+-]*\n/, "").replace(/\n$/, "");
      pre.append(code);
      pre.tabIndex = 0;
      target.append(pre);
      return;
    }
    const around = i ? part.replace(/^\n/, "") : part;
    around.split(/(`[^`\n]+`)/).forEach((piece, j) => {
      if (j % 2) {
        const code = document.createElement("code");
        code.textContent = piece.slice(1, -1);
        target.append(code);
      } else if (piece) {
        target.append(piece);
      }
    });
  });
}

function show(role, text) {
  const item = document.createElement("li");
  const who = document.createElement("span");
  const said = document.createElement("div");
  item.className = `turn ${role}`;
  who.className = "who";
  who.textContent = role === "user" ? "You said:" : "The model said:";
  said.className = "said";
  render(said, text);
  item.append(who, said);
  $("welcome").hidden = true;
  $("log").hidden = false;
  $("log").append(item);
  $("scroll").scrollTop = $("scroll").scrollHeight;
  return item;
}

function note(item, text) {
  const meta = document.createElement("div");
  meta.className = "meta";
  meta.textContent = text;
  item.append(meta);
}

// The events of a stream, one JSON value each; a stream that breaks off is an error.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      part = { done: true };
    }
    if (part.done) {
      reachable(false);
      throw new Refusal(0, "The answer broke off: the connection to the server was lost.");
    }
    const whole = (held + part.value).split("\n\n");
    held = whole.pop();
    for (const event of whole) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (!data) continue;
      if (data === "data: [DONE]") return;
      const value = JSON.parse(data.slice(6));
      if (value.error) throw new Refusal(500, sentence(value.error.message));
      yield value;
    }
  }
}

// Streams one answer into `item`; returns what was said, how it ended and how fast.
async function stream(item) {
  const answer = { text: "", reason: null, tokens: 0, first: 0, last: 0 };
  const said = item.querySelector(".said");
  let drawn = false;
  const draw = () => {
    drawn = false;
    const view = $("scroll");
    const following = view.scrollHeight - view.scrollTop - view.clientHeight < 80;
    render(said, answer.text);
    if (following) view.scrollTop = view.scrollHeight;
  };
  item.answer = answer;
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    signal: running.signal,
    body: JSON.stringify({
      model, messages: turns, stream: true, stream_options: { include_usage: true },
      temperature: Number($("temperature").value), max_tokens: Math.max(1, Math.round(Number($("most").value)) || 256),
    }),
  });
  try {
    for await (const { choices, usage } of events(response)) {
      if (usage) answer.tokens = usage.completion_tokens;
      if (!choices.length) continue;
      answer.reason = choices[0].finish_reason || answer.reason;
      const piece = choices[0].delta.content;
      if (!piece) continue;
      answer.last = performance.now();
      answer.first ||= answer.last;
      answer.text += piece;
      if (!drawn) { drawn = true; requestAnimationFrame(draw); }
    }
  } finally {
    draw();
  }
}

function summary({ reason, tokens, first, last }) {
  const parts = [`${tokens} token${tokens === 1 ? "" : "s"}`];
  if (tokens > 1 && last > first) {
    const speed = (tokens - 1) / (last - first) * 1000;
    parts.push(`${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`);
  }
  if (reason === "length") parts.push("cut off at the limit");
  return parts.join(" · ");
}

async function send() {
  const question = $("question").value.trim();
  if (running || !question) return;
  running = new AbortController();  // taken before the first await: one answer at a time
  busy(true);
  complain("");
  if (!model && !await connect()) { finish(); return; }
  if (predicts) { await predicted({ text: question }); finish(); return; }
  turns.push({ role: "user", content: question });
  const asked = show("user", question);
  const item = show("assistant", "");
  item.classList.add("busy");
  $("question").value = "";
  grow();
  try {
    await stream(item);
    if (!item.isConnected) return;  // a new chat has begun meanwhile
    note(item, summary(item.answer));
    turns.push({ role: "assistant", content: item.answer.text });
    $("status").textContent = "The answer is complete.";
  } catch (error) {
    if (!item.isConnected) return;
    const text = item.answer.text;
    const stopped = error.name === "AbortError";
    if (stopped || text) {
      note(item, stopped ? "stopped" : "interrupted");
      turns.push({ role: "assistant", content: text });
    } else {  // nothing was answered: the question goes back where it can be sent again
      turns.pop();
      asked.remove();
      item.remove();
      if (!$("question").value) $("question").value = question;
      grow();
    }
    if (!stopped) complain(error.message);
  } finally {
    item.classList.remove("busy");
    finish();
  }
}

function finish() {
  running = null;
  busy(false);
  const empty = !$("log").children.length;
  $("log").hidden = empty;
  $("welcome").hidden = !empty;
  if ($("key-form").hidden) $("question").focus();
}

function busy(on) {
  $("log").setAttribute("aria-busy", String(on));
  $("send").textContent = on ? "Stop" : "Send";
  $("send").classList.toggle("stop", on);
  ready();
}

function ready() {
  $("send").disabled = !running && !$("question").value.trim();
}

function grow() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  ready();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort(); else send();
});
$("question").addEventListener("input", grow);
$("question").addEventListener("keydown", (event) => {
  // While an input method composes, Enter chooses a character and must not send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
$("new").addEventListener("click", () => {
  if (running) running.abort();
  turns.length = 0;
  $("log").replaceChildren();
  $("log").hidden = true;
  $("welcome").hidden = false;
  complain("");
  $("question").focus();
});
$("temperature").addEventListener("input", () => {
  $("temperature-shown").textContent = Number($("temperature").value).toFixed(1);
});
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  if (await connect()) {
    sessionStorage.setItem("modelwright-key", key);
    $("key").value = "";
    $("question").focus();
  }
});
