import { Chart, milliseconds } from "./chart.js";
import { $, make } from "./page.js";
import { Connection } from "./tornado_ws.js";

const LONGEST_WAIT = 15_000;
const PROBE_EVERY = 250;
const MOST_ECHOES = 20;
const MOST_LOG_LINES = 200;

// Connections, their state and their buttons

function describe(connection) {
  const { state, socket, lastClose, retryAt } = connection;
  if (state === "open") return socket.extensions ? `open, ${socket.extensions.split(";")[0]}` : "open";
  if (state === "connecting") return "connecting";
  const why = lastClose ? `${lastClose.code}${lastClose.reason ? ` ${lastClose.reason}` : ""}` : "";
  if (state === "closed") return why ? `closed: ${why}` : "closed";
  return `lost (${why}), back in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`;
}

function show(connection) {
  const link = $("link").content.firstElementChild.cloneNode(true);
  const button = link.querySelector("button");
  link.querySelector("code").textContent = connection.url().split("?")[0];
  const refresh = () => {
    link.dataset.state = connection.state;
    link.querySelector(".state").textContent = describe(connection);
    button.textContent = connection.state === "open" ? "Close" : "Connect";
    button.disabled = connection.state === "connecting";
  };
  button.onclick = () => (connection.state === "open" ? connection.close(1000, "closed by hand") : connection.connect());
  connection.addEventListener("state", refresh);
  setInterval(() => connection.state === "waiting" && refresh(), 500);
  refresh();
  $("links").append(link);
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
    $(`trip-${name}`).textContent = figures ? milliseconds(figures[name]) : "–";
  }
}

// The answer to a probe draws the chart. To draw at its departure would be to measure the drawing.
setInterval(() => probe() || draw(), PROBE_EVERY);

// Echo: the answers come in the order of the questions

let waiting = [];

function sendsOver(connection, form) {
  const button = form.querySelector("button");
  connection.addEventListener("state", () => (button.disabled = connection.state !== "open"));
}

sendsOver(echo, $("echo-form"));
$("echo-form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("echo-text").value;
  if (echo.send(text)) {
    waiting.push(performance.now());
    $("echo-text").value = "";
  }
};

echo.addEventListener("state", () => {
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
  line.append(make("span", "text", data || "(empty)"), make("small", "", milliseconds(now - waiting.shift())));
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

function addToChat(...lines) {
  const log = $("chat-log");
  // Who has scrolled up is reading, and is left alone.
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(...lines);
  while (log.children.length > MOST_LOG_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

chat.addEventListener("message", ({ data }) => {
  const event = JSON.parse(data);
  if (event.kind === "past") {
    $("chat-log").replaceChildren();
    addToChat(...event.events.map(chatLine));
    return;
  }
  addToChat(chatLine(event));
  $("present").textContent = `${event.present.length} here: ${event.present.join(", ")}`;
});

chat.addEventListener("state", () => {
  if (chat.state !== "open") $("present").textContent = "";
});

sendsOver(chat, $("chat-form"));
$("chat-form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("chat-text").value.trim();
  if (text && chat.send(JSON.stringify({ kind: "say", text }))) $("chat-text").value = "";
};

$("chat-name").onchange = () => {
  const wanted = $("chat-name").value.trim().replace(/\s+/g, " ");
  $("chat-name").value = wanted || name;
  if (!wanted || wanted === name) return;
  name = wanted;
  sessionStorage.setItem("name", name);
  chat.send(JSON.stringify({ kind: "name", name }));
};

for (const connection of [echo, chat]) {
  show(connection);
  connection.connect();
}

// For the console: demo.echo.socket.extensions, demo.chat.close(4002, "lunch"), demo.chart.samples
globalThis.demo = { echo, chat, chart };
