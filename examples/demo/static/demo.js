import { Chart, milliseconds } from "./chart.js";
import { $, make } from "./page.js";
import { Connection } from "./tornado_ws.js";

const LONGEST_WAIT = 15_000;
const PROBE_EVERY = 250;
const MOST_ECHOES = 20;
const MOST_LOG_LINES = 200;

// Connections, their state and their buttons

// How the last connection that was open ended. Attempts to come back fail with a 1006 that explains nothing.
const endings = new WeakMap();

function why(connection) {
  const { code, reason } = endings.get(connection) ?? connection.lastClose ?? { code: "", reason: "" };
  return reason ? `${reason} (${code})` : code === 1006 ? "no connection (1006)" : `${code}`;
}

function describe(connection) {
  const { state, socket, retryAt } = connection;
  if (state === "open") return socket.extensions ? `open, ${socket.extensions.split(";")[0]}` : "open";
  if (state === "connecting") return "connecting";
  if (state === "closed") return why(connection) ? `closed: ${why(connection)}` : "closed";
  return `lost: ${why(connection)}; back in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`;
}

// Whoever follows a connection is called when its state changes, and while it waits: there is a clock in its description.
function follow(connection, refresh) {
  connection.addEventListener("state", refresh);
  setInterval(() => connection.state === "waiting" && refresh(), 500);
  refresh();
}

function show(connection) {
  const link = $("link").content.firstElementChild.cloneNode(true);
  const button = link.querySelector("button");
  link.querySelector("code").textContent = connection.url().split("?")[0];
  button.onclick = () => (connection.state === "open" ? connection.close(1000, "closed by hand") : connection.connect());
  follow(connection, () => {
    link.dataset.state = connection.state;
    link.querySelector(".state").textContent = describe(connection);
    button.textContent = connection.state === "open" ? "Close" : "Connect";
    button.disabled = connection.state === "connecting";
  });
  $("links").append(link);
}

// A form that sends over a connection: where that is gone, it says why, and what to do.
function sendsOver(connection, form) {
  const send = form.querySelector("button");
  const lost = form.querySelector(".lost");
  const again = lost.querySelector("button");
  again.onclick = () => connection.connect();
  follow(connection, () => {
    const { state } = connection;
    send.disabled = state !== "open";
    if (state !== "connecting") lost.hidden = state === "open" || !connection.lastClose;
    lost.querySelector("span").textContent = describe(connection);
    again.textContent = state === "waiting" ? "Connect now" : "Connect again";
    again.disabled = state === "connecting";
  });
}

// What was sent and did not come back before the end goes back into its field, in front of what is there by now.
function giveBack(texts, field) {
  if (texts.length) field.value = [...texts, field.value].join(" ").trim().slice(0, field.maxLength);
}

// Round trip: JavaScript cannot send a ping frame, so a binary message with the time goes out and comes back

const echo = new Connection(() => "echo", { maxDelay: LONGEST_WAIT });
const chart = new Chart($("chart"));
let probing = false;

// One at a time: on a slow line more of them would measure their own queue.
function probe() {
  if (probing) return false;
  probing = echo.send(new Float64Array([performance.now()]));
  return probing;
}

function draw() {
  chart.draw();
  const figures = chart.figures;
  for (const name of ["now", "median", "max"]) {
    $(`trip-${name}`).textContent = figures && figures[name] !== null ? milliseconds(figures[name]) : "–";
  }
}

// The answer to a probe draws the chart. To draw at its departure would be to measure the drawing.
setInterval(() => probe() || draw(), PROBE_EVERY);

// Echo: the answers come in the order of the questions

let waiting = [];

$("echo-form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("echo-text").value;
  if (echo.send(text)) {
    waiting.push({ text, at: performance.now() });
    $("echo-text").value = "";
  }
};

echo.addEventListener("state", () => {
  giveBack(waiting.map(({ text }) => text), $("echo-text"));
  waiting = [];
  probing = false;
});

echo.addEventListener("message", ({ data }) => {
  const now = performance.now();
  if (typeof data !== "string") {
    probing = false;
    chart.add(now, now - new Float64Array(data)[0]);
    draw();
    return;
  }
  const line = make("li", "");
  line.append(make("span", "text", data || "(empty)"), make("small", "", milliseconds(now - waiting.shift().at)));
  $("echoes").prepend(line);
  if ($("echoes").children.length > MOST_ECHOES) $("echoes").lastElementChild.remove();
});

// Chat

// A name belongs to the tab, so that two tabs are two people.
const someone = () => {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const first = pick(["Quiet", "Swift", "Early", "Amber", "Northern", "Patient"]);
  return `${first} ${pick(["Heron", "Otter", "Lynx", "Wren", "Marten", "Plover"])}`;
};
let name = sessionStorage.getItem("name") || someone();
sessionStorage.setItem("name", name);
$("chat-name").value = name;

const chat = new Connection(() => `chat?name=${encodeURIComponent(name)}`, { maxDelay: LONGEST_WAIT });

function chatLine(event) {
  const at = new Date(event.at * 1000);
  const time = make("time", "", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = at.toISOString();
  const line = make("li", event.kind);
  if (event.kind === "said") {
    line.classList.toggle("mine", event.who === name);
    line.append(make("b", "", event.who), time, make("p", "", event.text));
    return line;
  }
  const code = [event.code, event.reason].filter(Boolean).join(" ");
  const note = {
    joined: "joined",
    renamed: `is now ${event.name}`,
    left: code ? `left (${code})` : "left",
  };
  line.append(make("span", "", `${event.who} ${note[event.kind]}`), time);
  return line;
}

// Who has scrolled up is reading, and is left alone. Everybody else sees the end, also when the size of the log changes.
const log = $("chat-log");
let isAtEnd = true;
let ownTop = 0; // the event of our own scrolling comes late, when the log may have another size

function toEnd() {
  if (!isAtEnd) return;
  log.scrollTop = log.scrollHeight;
  ownTop = log.scrollTop;
}

log.onscroll = () => {
  if (log.scrollTop !== ownTop) isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
};
new ResizeObserver(toEnd).observe(log);

function addToChat(...lines) {
  log.append(...lines);
  while (log.children.length > MOST_LOG_LINES) log.firstElementChild.remove();
  toEnd();
}

let unsaid = []; // what was sent and has not come back

chat.addEventListener("message", ({ data }) => {
  const event = JSON.parse(data);
  if (event.kind === "past") {
    $("server").textContent = `${event.server}.`;
    log.replaceChildren();
    addToChat(...event.events.map(chatLine));
    return;
  }
  if (event.kind === "said" && event.who === name) unsaid.splice(0, unsaid.indexOf(event.text) + 1);
  addToChat(chatLine(event));
  $("present").textContent = `${event.present.length} here: ${event.present.join(", ")}`;
  $("alone").hidden = event.present.length > 1;
});

chat.addEventListener("state", () => {
  giveBack(unsaid, $("chat-text"));
  unsaid = [];
  if (chat.state === "open") return;
  $("present").textContent = "";
  $("alone").hidden = true;
});

$("chat-form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("chat-text").value.trim();
  if (!text || !chat.send(JSON.stringify({ kind: "say", text }))) return;
  unsaid.push(text);
  $("chat-text").value = "";
  isAtEnd = true;
};

$("chat-name").onchange = () => {
  const wanted = $("chat-name").value.trim().replace(/\s+/g, " ");
  $("chat-name").value = wanted || name;
  if (!wanted || wanted === name) return;
  name = wanted;
  sessionStorage.setItem("name", name);
  chat.send(JSON.stringify({ kind: "name", name }));
};

for (const [connection, form] of [[echo, $("echo-form")], [chat, $("chat-form")]]) {
  connection.addEventListener("state", () => {
    if (connection.state === "open") endings.set(connection, null);
    else if (connection.state !== "connecting") endings.set(connection, endings.get(connection) ?? connection.lastClose);
  });
  show(connection);
  sendsOver(connection, form);
  connection.connect();
}

// For the console: demo.echo.socket.extensions, demo.chat.close(4002, "lunch"), demo.chart.samples
globalThis.demo = { echo, chat, chart };
