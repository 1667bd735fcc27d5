// Keeps the overview up to date: over a WebSocket, and by asking every five seconds without one.
// The page knows by its cursor which events it has. It shows a frame's events only when the frame
// begins at that cursor, so that nothing is missed and nothing comes twice, whatever was cut off.

const POLL_EVERY = 5000;
const SILENCE = 15000; // the server says something every five seconds
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 4000;
const MOST_EVENTS = 100;
// What a socket is closed with when the user may not see the page any more.
const SIGNED_OUT = 4401;
const NOT_ALLOWED = 4403;

const page = document.querySelector("[data-live]");
const table = page.querySelector("[data-rows]");
const ticker = page.querySelector("[data-ticker]");
const eventTemplate = page.querySelector("[data-event]");
const asOf = page.querySelector("[data-live-time]");
const hold = page.querySelector("[data-hold]");
const state = document.querySelector("[data-live-state]");
const topic = page.dataset.topic || null;

let cursor = ticker.dataset.cursor || null;
let updatedAt = new Date();
let socket = null;
let attempt = 0;
let isResuming = false;
let hasBeenLive = false;
let isOver = false;
let polling = null;
let silence = null;
let held = null; // news that wait while the reader holds the ticker

// ---- What is shown

function show(name, text) {
  state.dataset.state = name;
  state.lastElementChild.textContent = text;
}

const clock = (date) => date.toLocaleTimeString("en-GB");

// Writes times as the reader's clock shows them.
function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    const isToday = date.toDateString() === new Date().toDateString();
    const day = isToday ? "" : date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    time.textContent = `${day} ${clock(date)}`.trim();
    time.title = `${date.toLocaleString()}, ${time.dateTime}`;
  }
}

// Turns an element into another and leaves alone what is the same in both, so that the focus, a
// selection and a click that has begun survive.
function morph(from, to) {
  if (from.nodeName !== to.nodeName) return from.replaceWith(to);
  if (from.nodeType === Node.TEXT_NODE && from.data !== to.data) from.data = to.data;
  if (from.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name } of [...from.attributes]) {
    // What the reader opened stays open.
    if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  const [old, fresh] = [[...from.childNodes], [...to.childNodes]];
  fresh.forEach((node, index) => (old[index] ? morph(old[index], node) : from.append(node)));
  old.slice(fresh.length).forEach((node) => node.remove());
}

function elementOf(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // rendered by the server, which escapes
  localise(template.content);
  return template.content.firstElementChild;
}

function showFigures({ fragments, rows }) {
  for (const [id, html] of Object.entries(fragments)) {
    const [element, fresh] = [document.getElementById(id), elementOf(html)];
    if (element) morph(element, fresh);
    else if (fresh.matches("tr")) table.append(fresh);
  }
  if (!rows) return;
  const ordered = rows.map((id) => document.getElementById(id)).filter(Boolean);
  const isSame = ordered.every((row, index) => table.children[index] === row);
  if (!isSame || table.children.length !== ordered.length) table.replaceChildren(...ordered);
}

function eventItem({ at, topic: name, tone, body }) {
  const item = eventTemplate.content.firstElementChild.cloneNode(true);
  const [time, link, code] = item.children;
  time.dateTime = at;
  link.textContent = link.title = name;
  link.className = `topic tone-${tone}`;
  link.href = `?topic=${encodeURIComponent(name)}`;
  code.textContent = code.title = body;
  localise(item);
  return item;
}

function lineItem(text) {
  const item = document.createElement("li");
  item.className = "aside";
  item.textContent = text;
  return item;
}

function showNews({ events, skipped, reset, from }) {
  const items = events.map(eventItem);
  if (skipped) items.unshift(lineItem(`${skipped} more before these`));
  if (reset && from) items.unshift(lineItem("Older events may have left the log"));
  if (reset && !from) ticker.replaceChildren();
  for (const item of items) {
    item.classList.add("new");
    ticker.prepend(item);
  }
  while (ticker.children.length > MOST_EVENTS) ticker.lastElementChild.remove();
}

function takeNews(news) {
  if (!held) return showNews(news);
  held.push(news);
  hold.textContent = `Show ${held.reduce((sum, each) => sum + each.events.length, 0)} new`;
}

// Shows a frame; tells whether its events begin where this page is.
function apply({ news, figures, current }) {
  if (current) updatedAt = new Date();
  if (current && asOf) asOf.textContent = clock(updatedAt);
  if (figures) showFigures(figures);
  if (!news) return true;
  if (news.from !== cursor && news.from !== null) return false;
  cursor = news.cursor;
  if (news.events.length || news.skipped || news.reset) takeNews(news);
  return true;
}

// The user may not see the page any more: it neither asks again nor looks as if it were live.
function end(text) {
  isOver = true;
  stopPolling();
  clearTimeout(silence);
  show("off", text);
}

// ---- Without a socket

async function poll() {
  const asked = cursor;
  const url = new URL(page.dataset.live, location.href);
  if (asked) url.searchParams.set("cursor", asked);
  if (topic) url.searchParams.set("topic", topic);
  try {
    const response = await fetch(url, { redirect: "manual" });
    if (response.type === "opaqueredirect") return end("Signed out · reload to log in");
    if (response.status === 403) return end("Not allowed any more");
    const frame = await response.json();
    if (frame.code === "bad_cursor" && cursor === asked) cursor = null;
    // While this was on its way, a socket may have brought the same events.
    if (response.ok && cursor === asked) apply(frame);
  } catch {
    // The site is away as well; the state says since when.
  }
  if (polling) sayPolling();
}

// A site that serves no sockets is not one that went away.
function sayPolling() {
  const what = hasBeenLive ? "Reconnecting · polling" : "Polling every 5 seconds";
  show("polling", `${what} · last update ${clock(updatedAt)}`);
}

function startPolling() {
  if (polling) return;
  polling = setInterval(poll, POLL_EVERY);
  sayPolling();
  poll();
}

function stopPolling() {
  clearInterval(polling);
  polling = null;
}

// ---- Over a socket

function resume() {
  isResuming = true;
  socket.send(JSON.stringify({ type: "resume", cursor, topic }));
}

function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    const dead = socket;
    dead.onclose = dead.onmessage = null;
    dead.close();
    closed({ code: 1006 });
  }, SILENCE);
}

function receive({ data }) {
  listen();
  const frame = JSON.parse(data);
  if (frame.type === "error") {
    if (frame.code !== "bad_cursor") return;
    cursor = null;
    return resume();
  }
  stopPolling();
  attempt = 0;
  hasBeenLive = true;
  show("live", "Live");
  // Frames that were on their way when this page asked to resume begin elsewhere; one asks once.
  if (apply(frame)) isResuming = isResuming && !frame.news;
  else if (!isResuming) resume();
  socket.send(JSON.stringify({ type: "shown", number: frame.number }));
}

function closed({ code }) {
  clearTimeout(silence);
  if (isOver) return;
  if (code === NOT_ALLOWED) return end("Not allowed any more");
  startPolling();
  const longest = hasBeenLive ? LONGEST_PAUSE : 10 * LONGEST_PAUSE;
  const pause = Math.min(FIRST_PAUSE * 2 ** attempt, longest) * (0.75 + Math.random() / 2);
  attempt += 1;
  // After a log-out the poll finds out; after a log-in elsewhere the next socket is welcome.
  setTimeout(() => isOver || connect(), code === SIGNED_OUT ? POLL_EVERY : pause);
}

function connect() {
  const url = new URL(page.dataset.live, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.onopen = resume;
  socket.onmessage = receive;
  socket.onclose = closed;
  listen();
}

// ---- What the reader does

hold.hidden = false;
hold.addEventListener("click", () => {
  const waiting = held;
  held = held ? null : [];
  hold.setAttribute("aria-pressed", String(Boolean(held)));
  hold.textContent = held ? "Show new" : "Hold";
  waiting?.forEach(showNews);
});

// Pauses and resumes queues without leaving the page.
page.querySelector("[data-control]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { formAction } = event.submitter;
  await fetch(formAction, { method: "POST", body: new FormData(event.target), redirect: "manual" });
  await poll();
});

localise(page);
connect();
