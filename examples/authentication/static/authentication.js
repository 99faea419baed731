// One connection for each way in which a page can tell who it is.

import { Connection } from "./tornado_ws.js";
import { $, make } from "./page.js";

let token = "";

async function freshToken() {
  const answer = await fetch("token", { cache: "no-store" });
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  token = (await answer.json()).token;
  return token;
}

const ways = {
  cookie: new Connection("/cookie"),
  // By a function: the next attempt has the token of then.
  subprotocol: new Connection("/subprotocol", { protocols: () => ["v1.app", `bearer.${token}`] }),
  first: new Connection("/first"),
};

const sendToken = (connection) => connection.send(JSON.stringify({ token }));

for (const [name, connection] of Object.entries(ways)) {
  const link = make("li", "link");
  const state = make("span", "state", "closed");
  link.append(make("span", "dot"), make("code", "", name), state);
  $("links").append(link);
  connection.addEventListener("state", () => {
    const { lastClose, lastStatus } = connection;
    const why = connection.state === "closed" && lastClose ? `: ${lastStatus || lastClose.code} ${lastClose.reason}` : "";
    link.dataset.state = connection.state;
    state.textContent = connection.state + why;
    if (connection.state !== "open") return;
    if (name === "first") sendToken(connection);
    connection.send("hello");
  });
  connection.addEventListener("message", ({ data }) => {
    $("log").append(make("li", "", `${name}: ${data}`));
    if (JSON.parse(data).renew === undefined) return;
    freshToken().then(() => sendToken(connection), (error) => ($("told").textContent = error.message));
  });
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData($("login")));
  const answer = await fetch("login", { method: "POST", body });
  $("told").textContent = answer.ok ? "" : `no: ${answer.status}`;
  if (!answer.ok) return;
  token = (await answer.json()).token;
  for (const connection of Object.values(ways)) connection.connect();
});
$("logout").addEventListener("click", () => fetch("logout", { method: "POST" }));

globalThis.demo = ways;
