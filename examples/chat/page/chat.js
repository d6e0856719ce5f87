"use strict";

const $ = (id) => document.getElementById(id);

const room = location.pathname.split("/")[2];
const maxLines = 500;               // kept on the page
const firstDelay = 500;             // milliseconds before the first new attempt
const lastDelay = 30_000;           // and at most between two later ones

const reasons = {                   // of the close codes that a person can make sense of
  1001: "The server is going away",
  1008: "The server closed a connection that was too slow",
  1009: "The line was too long",
};

let name = localStorage.getItem("name") ?? "";
let given = "";                     // the name the server gave: with a number if ours was taken
let here = [];                      // who is in the room
let socket = null;
let attempts = 0;                   // failed in a row
let timer = 0;

document.title = `${room} · Chat`;
$("room").textContent = room;

// The connection

function connect() {
  clearTimeout(timer);
  timer = 0;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const ws = new WebSocket(`${scheme}//${location.host}${location.pathname}/socket?name=${encodeURIComponent(name)}`);
  socket = ws;
  showState("connecting", "connecting…");
  $("countdown").textContent = "Trying…";

  // Only the newest socket counts: an older one may still be closing.
  ws.onmessage = ({ data }) => {
    if (socket === ws) receive(JSON.parse(data));
  };
  ws.onclose = ({ code, reason }) => {
    if (socket !== ws) return;
    socket = null;
    again(code, reason);
  };
}

// again tries after a pause that doubles, up to a limit, and of which half is
// chance: a server that restarts isn't met by everyone at once.
function again(code, reason) {
  const most = Math.min(lastDelay, firstDelay * 2 ** attempts++);
  let left = most / 2 + Math.random() * most / 2;
  showState("waiting", "not connected");
  $("why").textContent = `${reason || reasons[code] || "The connection is gone"}.`;
  const wait = () => {
    $("countdown").textContent = `Next try in ${Math.ceil(left / 1000)} s.`;
    const step = Math.min(left, 1000);
    timer = setTimeout(() => {
      left -= step;
      if (left > 0) wait();
      else connect();
    }, step);
  };
  wait();
}

// now connects at once when we were only waiting to.
function now() {
  if (timer) connect();
}

addEventListener("online", now);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) now();
});
$("retry").addEventListener("click", () => {
  now();
  $("text").focus();
});

// What comes in

function receive(event) {
  switch (event.type) {
    case "welcome": {
      given = event.name;
      attempts = 0;
      showState("open", `as ${given}`);
      // The history stands for all we showed: what was missed is in it.
      $("lines").replaceChildren();
      for (const line of event.history ?? []) showLine(line);
      here = event.here;
      showHere();
      break;
    }
    case "line":
      showLine(event);
      break;
    case "join":
      showNotice(event, "joined");
      here.push(event.name);
      showHere();
      break;
    case "leave":
      showNotice(event, "left");
      here = here.filter((name) => name !== event.name);
      showHere();
      break;
  }
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || socket?.readyState !== WebSocket.OPEN) return; // the text stays in its field
  socket.send(text);
  $("text").value = "";
});

// Showing

function showState(state, text) {
  $("state").value = text;
  $("state").dataset.state = state;
  $("send").disabled = state !== "open";
  // A failed try changes nothing: the notice stays until there is a connection.
  if (state !== "connecting") $("trouble").hidden = state === "open";
}

function showLine({ name, text, time }) {
  const row = element("li", name === given ? "mine" : "");
  row.append(element("bdi", "name", name), clock(time), element("span", "text", text));
  row.lastChild.dir = "auto"; // Arabic and Hebrew read from the right
  append(row);
}

function showNotice({ name, time }, what) {
  const row = element("li", "notice");
  row.append(element("bdi", "", name), ` ${what} `, clock(time));
  append(row);
}

function showHere() {
  $("here-title").textContent = here.length === 1 ? "1 person here" : `${here.length} people here`;
  $("here").replaceChildren(...here.sort().map((name) => {
    const row = element("li");
    row.append(element("bdi", "", name));
    if (name === given) row.append(element("span", "you", " (you)"));
    return row;
  }));
}

function append(row) {
  const list = $("lines");
  list.append(row);
  while (list.childElementCount > maxLines) list.firstElementChild.remove();
  follow();
}

// The list follows the conversation, and a keyboard that takes half of the
// screen, unless the reader has scrolled up.
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
  const today = date.toDateString() === new Date().toDateString();
  const e = element("time", "", date.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" }));
  e.dateTime = date.toISOString();
  return e;
}

// Name and room

function ask() {
  $("name").value = name;
  $("room-name").value = room;
  $("who").showModal();
}

$("change").addEventListener("click", ask);

// The dialog may be left without a name only by who has one.
$("who").addEventListener("cancel", (event) => {
  if (!name) event.preventDefault();
});

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
  const wanted = $("name").value.trim();
  if (!wanted) {
    event.preventDefault();
    $("name").value = "";
    $("name").reportValidity();
    return;
  }
  localStorage.setItem("name", wanted);
  if ($("room-name").value !== room) {
    location.href = `/room/${$("room-name").value}`;
    return;
  }
  if (wanted !== name || !socket) {
    name = wanted;
    const old = socket;
    connect();
    old?.close(1000, "another name");
  }
  $("who").close(); // what is behind an open dialog takes no focus
  $("text").focus();
});

// On a phone the list of names is folded: the conversation comes first.
const narrow = matchMedia("(max-width: 40rem)");
const fold = () => { $("here-box").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();

if (name) connect();
else ask();
