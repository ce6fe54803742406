"use strict";
// A user's history, list, reasons and neighbours. The address after # says what is shown: #user=A3SG&item=B07K.

const at = (id) => document.getElementById(id);
const shown = { user: null, item: null, asked: 0 };

async function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== "");
  const headers = at("token").value ? { Authorization: `Bearer ${at("token").value}` } : {};
  const answer = await fetch(given.length ? `${path}?${new URLSearchParams(given)}` : path, { headers });
  if (answer.status === 401) at("token-field").hidden = false;
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer;
}

const json = async (path, query) => (await get(path, query)).json();

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text; // never as HTML: texts are the data's
  return made;
}

function entry(found) {
  const line = element("li");
  const button = element("button");
  button.type = "button";
  button.title = found.item;
  button.dataset.item = found.item;
  if (found.image) {
    const picture = element("img");
    picture.alt = "";
    get(found.image).then(async (answer) => {
      picture.src = URL.createObjectURL(await answer.blob());
      picture.onload = () => URL.revokeObjectURL(picture.src);
    }, () => picture.remove());
    button.append(picture);
  }
  button.append(element("span", "name", found.text || found.item));
  if (found.value !== undefined) button.append(element("span", "value", found.value.toFixed(3)));
  button.onclick = () => go(shown.user, found.item);
  line.append(button);
  return line;
}

function problem(error) {
  at("problem").textContent = error.message;
  at("problem").hidden = false;
}

const list = (id, items) => at(id).replaceChildren(...items.map(entry));

// One line a part: its name, a bar from zero, its value. Zero is in the middle where some are negative.
function bars(parts, score) {
  const values = parts.map(([, value]) => value);
  const largest = Math.max(...values.map(Math.abs)) || 1;
  const signed = values.some((value) => value < 0);
  const line = (name, value, track, kind) => {
    const row = element("div", kind);
    row.append(element("span", "", name), track, element("span", "value", value.toFixed(4)));
    return row;
  };
  const drawn = parts.map(([name, value]) => {
    const track = element("div", signed ? "bar signed" : "bar");
    const filled = element("span", value < 0 ? "below" : "");
    filled.style.width = `${((signed ? 50 : 100) * Math.abs(value)) / largest}%`;
    track.append(filled);
    return line(name, value, track, "part");
  });
  return [...drawn, line("score", score, element("div"), "part sum")];
}

function go(user, item) {
  const address = new URLSearchParams({ user: user ?? "" });
  if (item !== null) address.set("item", item);
  if (`#${address}` === location.hash) show();
  else location.hash = address.toString();
}

async function show() {
  const address = new URLSearchParams(location.hash.slice(1));
  const user = address.get("user");
  const item = address.get("item");
  const turn = ++shown.asked; // a later question's answer is not overwritten by an earlier one's
  at("problem").hidden = true;
  if (!user) return;
  at("user").value = user;
  try {
    const path = encodeURIComponent(user);
    const [had, best] = await Promise.all([
      json(`/users/${path}`, { k: 100, describe: true }),
      json("/recommend", { user, k: at("k").value, describe: true }),
    ]);
    if (turn !== shown.asked) return;
    shown.user = user;
    at("had-count").textContent = had.interactions > had.items.length ? `${had.items.length} of ${had.interactions}` : had.interactions;
    list("had", had.items);
    list("recommended", best.items);
    await why(user, item, turn);
  } catch (error) {
    if (turn !== shown.asked) return;
    problem(error);
  }
  document.body.dataset.shown = location.hash;
}

async function why(user, item, turn) {
  shown.item = item;
  at("why-hint").hidden = item !== null;
  at("near").hidden = item === null;
  at("why-item").textContent = "";
  at("why").replaceChildren();
  if (item === null) return;
  const [reasons, told] = await Promise.all([
    json("/explain", { user, item, describe: true }),
    json(`/items/${encodeURIComponent(item)}`),
  ]);
  if (turn !== shown.asked) return;
  for (const button of document.querySelectorAll("[data-item]")) button.toggleAttribute("aria-current", button.dataset.item === item);
  at("why-item").textContent = `${told.text || item}${reasons.seen ? " (has had it)" : ""}`;
  at("near-item").textContent = told.text || item;
  at("why").append(...bars(Object.entries(reasons.contributions), reasons.score));
  for (const [name, near] of Object.entries(reasons.nearest)) {
    if (!near.length) continue;
    const items = element("ol", "items");
    items.append(...near.map(entry));
    at("why").append(element("h3", "", `Nearest of the user's own, by ${name}`), items);
  }
  await near(item, turn);
}

async function near(item, turn) {
  const found = await json("/similar", { item, k: at("k").value, by: at("by").value, describe: true });
  if (turn === shown.asked) list("similar", found.items);
}

async function start() {
  try {
    const about = await json("/health");
    at("about").textContent = `${about.model} on ${about.dataset}: ${about.users.toLocaleString("en")} users, ${about.items.toLocaleString("en")} items`;
    at("by").append(new Option("all", ""), ...about.parts.map((name) => new Option(name, name)));
    const known = await json("/users", { k: 100 });
    at("users").append(...known.users.map((name) => new Option(name, name)));
    if (!location.hash && known.users.length) go(known.users[0], null);
    else await show();
  } catch (error) {
    problem(error);
  }
}

at("ask").onsubmit = (event) => {
  event.preventDefault();
  go(at("user").value, null);
};
at("by").onchange = () => near(shown.item, shown.asked).catch(problem);
window.onhashchange = show;
start();
