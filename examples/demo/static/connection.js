// A WebSocket that comes back when it is lost, which the browser's own does not.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;

// Events: "state" whenever `state` changes, and "message" as the browser's.
export class Connection extends EventTarget {
  state = "closed"; // connecting, open, waiting or closed
  socket = null;
  lastClose = null; // the CloseEvent of the connection before
  retryAt = 0;
  #failures = 0;
  #timer = 0;

  // A function, since the query may be another at the next attempt.
  constructor(path) {
    super();
    this.path = path;
    addEventListener("online", () => this.state === "waiting" && this.connect());
  }

  connect() {
    if (this.state === "open" || this.state === "connecting") return;
    clearTimeout(this.#timer);
    const url = new URL(this.path(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.#failures = 0;
      this.#become("open");
    };
    this.socket.onmessage = (event) => this.dispatchEvent(new MessageEvent("message", { data: event.data }));
    this.socket.onclose = (event) => this.#lost(event);
    this.#become("connecting");
  }

  // What is sent while there is no connection is the caller's to keep or to drop.
  send(data) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(data);
    return true;
  }

  close(code = 1000, reason = "") {
    clearTimeout(this.#timer);
    if (this.state === "waiting") this.#become("closed");
    else this.socket?.close(code, reason);
  }

  #lost(event) {
    this.lastClose = event;
    // 1000 is a goodbye and 4000 to 4999 is a word of the application: coming back would only bring it again.
    if (event.code === 1000 || event.code >= 4000) {
      this.#become("closed");
      return;
    }
    // The random part keeps a thousand pages from returning to a restarted server in the same instant.
    const wait = Math.min(FIRST_WAIT * 2 ** this.#failures++, LONGEST_WAIT) * (0.5 + Math.random() / 2);
    this.retryAt = Date.now() + wait;
    this.#timer = setTimeout(() => this.connect(), wait);
    this.#become("waiting");
  }

  #become(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}
