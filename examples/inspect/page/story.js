// The story: steps in the order of time, the client's on the left, the
// server's on the right.

import { element } from "./draw.js";

const maxSteps = 300;
const tick = 0.001; // a step that follows from another is at least this later

export class Story {
  #list;
  #steps = [];
  #anchor = null; // the first step of what was just asked for
  #wanted = false;
  #said = new Set();
  #below; // a button that says how many steps are out of sight

  constructor(list, below) {
    this.#list = list;
    this.#below = below;
    below.addEventListener("click", () => {
      this.#anchor = null;
      const [first] = this.#hidden(); // none, if it came into sight before the button knew
      if (first) list.scrollTop = first.row.offsetTop - 8;
    });
    list.addEventListener("scroll", () => this.#look(), { passive: true });
    list.addEventListener("toggle", () => this.#look(), true);
    new ResizeObserver(() => this.#look()).observe(list);
    // Who scrolls wants to read, not to be carried away.
    for (const event of ["wheel", "touchmove", "keydown"]) {
      list.addEventListener(event, () => (this.#anchor = null), { passive: true });
    }
  }

  // follow makes the next step the one that is scrolled to.
  follow() {
    this.#wanted = true;
    this.#anchor = null;
  }

  // show scrolls to a step.
  show(step) {
    this.#anchor = null;
    this.#list.scrollTop = step.row.offsetTop - 8;
  }

  // hidden returns the steps below what is seen.
  #hidden() {
    const end = this.#list.scrollTop + this.#list.clientHeight - 24;
    return this.#steps.filter((s) => s.row.offsetTop > end);
  }

  #look() {
    const n = this.#hidden().length;
    this.#below.hidden = n === 0;
    this.#below.textContent = `↓ ${n} more ${n === 1 ? "step" : "steps"}`;
  }

  has(kind) {
    return this.#steps.some((s) => s.kind === kind);
  }

  // once returns the sentence when the story doesn't have it yet, else again.
  once(sentence, again = "") {
    if (this.#said.has(sentence)) return again;
    this.#said.add(sentence);
    return sentence;
  }

  clear() {
    this.#said.clear();
    this.#list.replaceChildren();
    this.#steps = this.#steps.filter((s) => s.kind === "listen");
    for (const s of this.#steps) this.#list.append(s.row);
    this.#look();
  }

  // add puts a step where its time says, but behind what it follows from
  // (after); what follows from it and is there already (before) gives way.
  add(step) {
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    if (step.after) step.at = Math.max(step.at, step.after.at + tick);
    this.#place(step);
    if (step.before && step.before.at <= step.at) {
      this.#steps.splice(this.#steps.indexOf(step.before), 1);
      step.before.row.remove();
      step.before.at = step.at + tick;
      this.#place(step.before);
    }
    while (this.#steps.length > maxSteps) this.#steps.shift().row.remove();
    if (this.#wanted) {
      this.#wanted = false;
      this.#anchor = step.row;
    }
    if (this.#anchor) {
      this.#list.scrollTop = this.#anchor.offsetTop - 8;
    } else if (atEnd) {
      this.#list.scrollTop = this.#list.scrollHeight;
    }
    this.#look();
    return step;
  }

  #place(step) {
    step.row = draw(step);
    let i = this.#steps.length;
    while (i > 0 && this.#steps[i - 1].at > step.at) i--;
    this.#list.insertBefore(step.row, this.#steps[i]?.row ?? null);
    this.#steps.splice(i, 0, step);
  }
}

// draw makes the row of a step.
function draw(step) {
  const top = element("div", "top", element("span", "title", step.title));
  if (step.client && step.side === "server") top.append(element("span", "tag", step.client));
  for (const name of step.via ?? []) top.append(via(name));
  top.append(element("span", "time", since(step.at - step.start)));
  const card = element("div", "step", top);
  if (step.code) card.append(element("code", "line", step.code));
  if (step.rule) card.append(rule(step.rule));
  if (step.sentence) card.append(element("p", "sentence", step.sentence));
  if (step.pictures?.length) {
    const details = element("details", "", element("summary", "", step.summary ?? "in full"), ...step.pictures.filter(Boolean));
    details.open = !step.folded;
    card.append(details);
  }
  if (step.note) card.append(element("p", "note", step.note));
  return element("li", `${step.side} ${step.kind}${step.causes ? " causes" : ""}`, card);
}

// via names what does a step: a name that the library exports, or a link to the
// file that has it.
function via(name) {
  if (!name.endsWith(".go")) return element("code", "via", name);
  const link = element("a", "via", name.split("/").at(-1));
  link.title = name;
  link.href = `https://github.com/rawws/websocket/blob/main/${name}`;
  link.rel = "noreferrer";
  link.target = "_blank";
  return link;
}

const since = (ms) => (ms < 10000 ? `+${ms.toFixed(2)} ms` : `+${(ms / 1000).toFixed(1)} s`);

// rule names what was broken, and links to where it stands.
export function rule(problem) {
  const p = element("p", "rule", element("b", "", problem.code ? `${problem.code}: ${problem.reason}` : problem.reason));
  const place = problem.section?.match(/RFC (\d+), section ([\d.]+)/);
  if (place) {
    const link = element("a", "", problem.section);
    link.href = `https://www.rfc-editor.org/rfc/rfc${place[1]}#section-${place[2]}`;
    link.rel = "noreferrer";
    link.target = "_blank";
    p.append(". ", link);
  }
  if (problem.sentence) p.append(`. ${problem.sentence}`);
  return p;
}
