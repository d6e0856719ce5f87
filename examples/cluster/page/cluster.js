"use strict";

const $ = (id) => document.getElementById(id);

const room = location.pathname.split("/")[2];
const maxLines = 500;               // kept on the page
const firstDelay = 500;             // milliseconds before the first new attempt
const lastDelay = 30_000;           // and at most between two later ones

let name = sessionStorage.getItem("name") ?? ""; // of this tab: each may be another person
let given = "";                     // the name the node gave: with a number if ours was taken
let socket = null;
let attempts = 0;                   // failed in a row
let timer = 0;

$("room").textContent = room;

function connect() {
  clearTimeout(timer);
  timer = 0;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const ws = socket = new WebSocket(`${scheme}//${location.host}${location.pathname}/socket?name=${encodeURIComponent(name)}`);
  ws.onmessage = ({ data }) => receive(JSON.parse(data));
  ws.onclose = ({ code, reason }) => {
    socket = null;
    // A pause that doubles, up to a limit, and of which half is chance: when a
    // node goes, its users don't come to the next one all at once.
    const most = Math.min(lastDelay, firstDelay * 2 ** attempts++);
    timer = setTimeout(connect, most / 2 + Math.random() * most / 2);
    const why = { 1001: "The node is going away", 1008: "The node closed a connection that was too slow" }[code];
    showState("waiting", "not connected");
    $("trouble").textContent = `${reason || why || "The connection is gone"}. Trying again…`;
    $("trouble").hidden = false;
  };
}

function now() {
  if (timer) connect();
}
addEventListener("online", now);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) now();
});

function receive(event) {
  switch (event.type) {
    case "welcome":
      given = event.name;
      attempts = 0;
      showState("open", `as ${given}`);
      $("trouble").hidden = true;
      $("node").value = `node ${event.node}`;
      $("cut-off").hidden = event.linked ?? false;
      // The history stands for all we showed: what was missed may be in it.
      $("lines").replaceChildren();
      for (const line of event.history ?? []) showLine(line);
      break;
    case "line":
      showLine(event);
      return;
    case "join":
    case "leave":
      if (event.name !== given) showNotice(event.name, event.type === "join" ? ` joined on node ${event.node} ` : ` left node ${event.node} `, event.time);
      break;
    case "link":
      $("cut-off").hidden = event.linked ?? false;
      showNotice(`Node ${event.node}`, event.linked ? " hears the others again " : " doesn't hear the others any more ", event.time);
      break;
  }
  showHere(event.here ?? []);
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || socket?.readyState !== WebSocket.OPEN) return; // the text stays in its field
  socket.send(text);
  $("text").value = "";
});

function showState(state, text) {
  $("state").value = text;
  $("state").dataset.state = state;
  $("send").disabled = state !== "open";
}

function showLine({ name, text, time, node }) {
  const row = element("li", name === given ? "mine" : "");
  row.append(element("bdi", "name", name), element("span", "node", node), clock(time), element("span", "text", text));
  row.lastChild.dir = "auto"; // Arabic and Hebrew read from the right
  append(row);
}

function showNotice(who, what, time) {
  const row = element("li", "notice");
  row.append(element("bdi", "", who), what, clock(time));
  append(row);
}

function showHere(names) {
  $("here-title").textContent = names.length === 1 ? "1 person here" : `${names.length} people here`;
  $("here").replaceChildren(...names.map((name) => {
    const row = element("li");
    row.append(element("bdi", "", name), name === given ? " (you)" : "");
    return row;
  }));
}

function append(row) {
  const list = $("lines");
  list.append(row);
  while (list.childElementCount > maxLines) list.firstElementChild.remove();
  follow();
}

// Who reads the end stays there: when lines come, and when a notice or a
// phone's keyboard takes the list's place. Who has scrolled up isn't moved.
let following = true;
function follow() {
  if (following) $("lines").scrollTop = $("lines").scrollHeight;
}
$("lines").addEventListener("scroll", ({ target: list }) => {
  following = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
});
new ResizeObserver(follow).observe($("lines"));

function element(tag, className = "", text = "") {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.textContent = text;
  return e;
}

function clock(milliseconds) {
  const date = new Date(milliseconds);
  const e = element("time", "", date.toLocaleTimeString([], { timeStyle: "short" }));
  e.dateTime = date.toISOString();
  return e;
}

$("who").addEventListener("cancel", (event) => event.preventDefault()); // nobody is without a name

// seen tells whether every character of a name is seen, which is what the
// server wants: a joiner or a variation selector only where emoji and some
// scripts have one.
function seen(name) {
  const rest = name.replace(/(?<=[^\x00-\x7f])(?:[\u200c\u200d](?=[^\x00-\x7f])|\ufe0f)/gu, "");
  return !/[\p{C}\p{Default_Ignorable_Code_Point}\u2800]/u.test(rest);
}

$("name").addEventListener("input", () => {
  $("name").setCustomValidity(seen($("name").value) ? "" : "There is a character in it that isn't seen");
});

$("who-form").addEventListener("submit", (event) => {
  name = $("name").value.trim();
  if (!name) {
    event.preventDefault();
    $("name").value = "";
    $("name").reportValidity();
    return;
  }
  sessionStorage.setItem("name", name);
  connect();
  $("who").close(); // what is behind an open dialog takes no focus
  $("text").focus();
});

if (name) connect();
else $("who").showModal();
