import { $, make } from "./page.js";
import { Connection } from "./tornado_ws.js";

const MOST_LOG_LINES = 200;
const TALK_EVERY = 100;

// What this page says is numbered, and kept until it comes back: then the broker has it

const page = Math.random().toString(36).slice(2);
const unconfirmed = new Map();
let number = 0;
let isResumed = false; // what waits goes first, or numbers would be out of order

function say(text) {
  const said = { id: `${page} ${++number}`, page, number, who: $("who").value.trim() || "Nobody", text };
  unconfirmed.set(said.id, said);
  add(said, true);
  if (isResumed) chat.send(JSON.stringify(said));
  count();
}

// Connection

const chat = new Connection("chat", { resume: true, maxDelay: 5000 });
let served = null;

function show() {
  const { state, lastClose, retryAt } = chat;
  $("link").dataset.state = state;
  $("kill").disabled = state !== "open";
  const seconds = Math.max(0, (retryAt - Date.now()) / 1000).toFixed(1);
  const words = { open: "open", connecting: "connecting", closed: `closed: ${lastClose?.code}` };
  $("state").textContent = words[state] ?? `lost (${lastClose.code}), back in ${seconds} s`;
  $("process").textContent = served ? `process ${served.served_by}, pid ${served.pid}` : "–";
}

chat.addEventListener("state", () => {
  if (chat.state !== "open") isResumed = false;
  show();
});
setInterval(() => chat.state === "waiting" && show(), 100);

// All that was missed has come before this. What has not come back by now goes to the new process: nobody can know
// whether the old one had it. If it had, it comes twice with one id, and is shown once.
chat.addEventListener("begin", ({ recovered }) => {
  if (recovered) {
    figures.resumed++;
    note(`resumed at process ${served.served_by}`);
  }
  isResumed = true;
  for (const said of unconfirmed.values()) chat.send(JSON.stringify(said));
  count();
});

chat.addEventListener("gap", () => note("some messages are gone: the server does not have them any more"));

// Messages: numbers of a page come one after the other, and a position comes once

const figures = { received: 0, lost: 0, doubled: 0, resumed: 0 };
const lastNumbers = new Map();
const positions = new Set();

chat.addEventListener("message", ({ data, topic, position }) => {
  if (!topic) {
    served = JSON.parse(data);
    show();
    return;
  }
  if (positions.has(position)) figures.doubled++;
  positions.add(position);
  const said = JSON.parse(data);
  const last = lastNumbers.get(said.page);
  if (last === undefined || said.number > last) {
    figures.received++;
    if (last !== undefined) figures.lost += said.number - last - 1;
    lastNumbers.set(said.page, said.number);
    if (!unconfirmed.delete(said.id)) add(said, false);
    else confirm(said);
  }
  count();
});

function count() {
  for (const [name, figure] of Object.entries(figures)) $(name).textContent = figure;
  for (const name of ["lost", "doubled"]) $(name).classList.toggle("bad", figures[name] > 0);
  $("unconfirmed").textContent = unconfirmed.size;
}

// The log

function append(line) {
  const log = $("log");
  // Who has scrolled up is reading, and is left alone.
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(line);
  while (log.children.length > MOST_LOG_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function add(said, isMine) {
  const line = make("li", isMine ? "said mine" : "said");
  line.dataset.id = said.id;
  line.toggleAttribute("data-waits", isMine);
  line.append(make("b", "", said.who), make("p", "", said.text), make("small", "", `#${said.number} ${said.via ?? ""}`));
  append(line);
}

function confirm(said) {
  const line = document.querySelector(`[data-id="${said.id}"]`);
  line?.removeAttribute("data-waits");
  line?.querySelector("small").replaceChildren(`#${said.number} ${said.via}`);
}

function note(text) {
  append(make("li", "", text));
}

// What people do

const pick = (words) => words[Math.floor(Math.random() * words.length)];
const first = pick(["Quiet", "Swift", "Early", "Amber", "Northern", "Patient"]);
$("who").value = `${first} ${pick(["Heron", "Otter", "Lynx", "Wren", "Marten", "Plover"])}`;

$("form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text) say(text);
  $("text").value = "";
};

$("kill").onclick = () => {
  note(`process ${served.served_by} gets kill -9`);
  chat.send(JSON.stringify({ kill: true }));
};

let talking = 0;
$("talk").onchange = () => {
  clearInterval(talking);
  if ($("talk").checked) talking = setInterval(() => say(`${number + 1}`), TALK_EVERY);
};

show();
chat.connect();

// For the console
globalThis.cluster = { chat, figures, say, unconfirmed, get served() { return served; } };
