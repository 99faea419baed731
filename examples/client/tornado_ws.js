// A WebSocket that comes back when it is lost, and goes on where it was: one file, no build.
//
//   import { Connection } from "./tornado_ws.js";
//
//   const room = new Connection("/rooms/a", { resume: true });
//   room.addEventListener("message", ({ data, topic }) => show(topic, data));
//   room.addEventListener("gap", ({ topic }) => loadAll(topic)); // the server does not have all that was missed
//   room.connect();
//
// It waits between two attempts for a random time from 0 to a limit that doubles, and honours Retry-After and close
// codes, as `reconnect` of tornado_ws does. docs/client.md has it all.

/** Whether a close code (RFC 6455 section 7.4.1) says that coming back would only bring it again. */
export function isFinal(code) {
  // A goodbye, with or without a word; what one of us did wrong; a word of a framework or of the application.
  return [1000, 1002, 1003, 1005, 1007, 1008, 1009, 1010].includes(code) || code >= 3000;
}

/** The statuses of HTTP that blame the page and will not pass. A request that is no handshake is answered 400 or 426. */
function isFinalStatus(status) {
  return status >= 400 && status < 500 && ![400, 408, 425, 426, 429].includes(status);
}

const DEFAULTS = {
  firstDelay: 500, // ms; the first limit
  maxDelay: 60_000, // ms; the last limit
  resetAfter: 10_000, // ms; after a connection that lasted so long the limit is the first one again
  isFinal, // (code, reason) => whether that close is the end
  asks: true, // whether an opening that failed is followed by a request that is told why
  protocols: [], // subprotocols that are offered, or a function that returns those of the next attempt
  resume: false, // whether messages are in envelopes, and each connection goes on where the one before ended
  argument: "since", // of the query, for the positions
  positions: {}, // by topic; those that a page kept
};

const MOST_TOPICS = 100;
const ASK_TIMEOUT = 10_000;

/**
 * Events: "state" whenever `state` changes; "message" as the browser's, with `topic` and `position` if it came in an
 * envelope; "begin" with `topic` and `recovered` when the server says where a topic begins, behind all that was missed;
 * "gap" with `topic` if there is more of it that was missed.
 */
export class Connection extends EventTarget {
  state = "closed"; // connecting, open, waiting or closed
  socket = null; // the browser's WebSocket
  lastClose = null; // the CloseEvent of the connection before
  lastStatus = 0; // the status of HTTP if the opening before failed and the server said why
  retryAt = 0; // Date.now() of the next attempt
  #options;
  #positions;
  #attempts = 0;
  #timer = 0;
  #isEnded = false;

  /** `url` may be relative, and a function if it is to be another at the next attempt. */
  constructor(url, options = {}) {
    super();
    this.url = url;
    this.#options = { ...DEFAULTS, ...options };
    this.#positions = new Map(Object.entries(this.#options.positions));
    addEventListener("online", () => this.state === "waiting" && this.connect());
  }

  /** Of each topic the position of the last message that came, as an object that a page can keep. */
  get positions() {
    return Object.fromEntries(this.#positions);
  }

  connect() {
    if (this.state === "open" || this.state === "connecting") return;
    clearTimeout(this.#timer);
    this.#isEnded = false;
    this.#attempts++;
    const url = this.#nextUrl();
    const { protocols } = this.#options;
    const socket = (this.socket = new WebSocket(url, typeof protocols === "function" ? protocols() : protocols));
    let openedAt = 0;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      openedAt = performance.now();
      this.#become("open");
    };
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = (event) => {
      if (openedAt && performance.now() - openedAt >= this.#options.resetAfter) this.#attempts = 0;
      this.#lost(event, openedAt ? null : url);
    };
    this.#become("connecting");
  }

  /** Returns whether there is a connection. What is sent without one is the caller's to keep or to drop. */
  send(data) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(data);
    return true;
  }

  /** Ends it for good; `connect` begins again. */
  close(code = 1000, reason = "") {
    clearTimeout(this.#timer);
    this.#isEnded = true;
    if (this.state === "waiting") this.#become("closed");
    else this.socket?.close(code, reason);
  }

  #nextUrl() {
    const url = new URL(typeof this.url === "function" ? this.url() : this.url, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#options.resume) {
      url.searchParams.set(this.#options.argument, this.#positions.size ? JSON.stringify(this.positions) : "");
    }
    return url;
  }

  // Connections that end

  async #lost(event, refusedUrl) {
    const { firstDelay, maxDelay, asks } = this.#options;
    this.lastClose = event;
    this.lastStatus = 0;
    if (this.#isEnded || this.#options.isFinal(event.code, event.reason)) {
      this.#become("closed");
      return;
    }
    // Wholly random: a thousand pages do not return to a restarted server in the same instant.
    const limit = Math.min(maxDelay, firstDelay * 2 ** Math.max(0, this.#attempts - 1));
    const wait = Math.random() * limit;
    this.retryAt = Date.now() + wait;
    this.#become("waiting");
    if (refusedUrl && asks) {
      const attempt = this.#attempts;
      const { status, retryAfter } = await why(refusedUrl);
      if (this.state !== "waiting" || this.#attempts !== attempt) return; // somebody was faster
      this.lastStatus = status;
      if (isFinalStatus(status)) {
        this.#become("closed");
        return;
      }
      this.retryAt = Math.max(this.retryAt, Date.now() + Math.min(maxDelay, retryAfter));
    }
    this.#timer = setTimeout(() => this.connect(), Math.max(0, this.retryAt - Date.now()));
    this.#become("waiting");
  }

  #become(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  // Messages

  #take(raw) {
    const { topic, position, data, recovered } = this.#options.resume ? opened(raw) : { data: raw };
    if (recovered === undefined) {
      // Others the server cannot resume, such as those of a prefix: it has not said where they begin.
      if (this.#positions.has(topic)) this.#positions.set(topic, position);
      this.dispatchEvent(Object.assign(new MessageEvent("message", { data }), { topic, position }));
      return;
    }
    const had = this.#positions.has(topic);
    if (had || this.#positions.size < MOST_TOPICS) this.#positions.set(topic, position);
    else console.warn(`more than ${MOST_TOPICS} topics: no position of ${topic} is kept`);
    if (had && !recovered) this.dispatchEvent(Object.assign(new Event("gap"), { topic }));
    this.dispatchEvent(Object.assign(new Event("begin"), { topic, recovered }));
  }
}

/** Ask with a plain request what a browser does not tell of a handshake: its status, and for how long to wait (ms). */
async function why(url) {
  const plain = new URL(url);
  plain.protocol = plain.protocol.replace("ws", "http");
  try {
    const signal = AbortSignal.timeout(ASK_TIMEOUT);
    const { status, headers, body } = await fetch(plain, { cache: "no-store", redirect: "manual", signal });
    body?.cancel().catch(() => {});
    return { status, retryAfter: milliseconds(headers.get("Retry-After"), headers.get("Date")) };
  } catch {
    return { status: 0, retryAfter: 0 }; // no server, or one of another origin that does not let us read
  }
}

/** Retry-After (RFC 9110 section 10.2.3) is seconds, or a date by the server's clock. */
function milliseconds(retryAfter, date) {
  if (/^\d+$/.test(retryAfter ?? "")) return Number(retryAfter) * 1000;
  const until = Date.parse(retryAfter ?? "");
  return Math.max(0, until - (Date.parse(date ?? "") || Date.now())) || 0;
}

// Envelopes, as docs/topics.md has them

function opened(raw) {
  try {
    return typeof raw === "string" ? fromText(raw) : fromBytes(raw);
  } catch {
    return { data: raw };
  }
}

function fromText(text) {
  const { topic, position, data, recovered } = JSON.parse(text);
  if (typeof topic === "string" && typeof position === "string") {
    if (typeof data === "string") return { topic, position, data };
    if (data === undefined && typeof recovered === "boolean") return { topic, position, recovered };
  }
  return { data: text };
}

function fromBytes(buffer) {
  const view = new DataView(buffer);
  if (view.getUint8(0) !== 1) return { data: buffer };
  const name = 2 + view.getUint8(1) + 2;
  const end = name + view.getUint16(name - 2);
  const text = (from, to) => new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, from, to - from));
  return { topic: text(name, end), position: text(2, name - 2), data: buffer.slice(end) };
}
