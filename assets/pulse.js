// pulse: what pages can do beyond plain HTML. Everything works without it.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const body = document.body;
const zone = body.dataset.zone;
const panelsPath = body.dataset.panels;

// Times as the server shows them, in its zone.
const clock = (() => {
  const options = { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  try { return new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone }); }
  catch { return new Intl.DateTimeFormat("en-GB", options); }
})();
const timeOf = (ms) => clock.format(new Date(ms));

// The browser's zone, so that the next page shows local times.
const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (here && !document.cookie.includes("tz=")) document.cookie = `tz=${encodeURIComponent(here)};path=/;max-age=31536000;samesite=lax`;

const query = () => new URLSearchParams(location.search);
const go = (change) => {
  const params = query();
  for (const [name, value] of Object.entries(change)) value === null ? params.delete(name) : params.set(name, value);
  location.search = params.toString();
};

// ---- Exact values: fetched once for each picture, on the first look.

const values = new WeakMap();
function valuesOf(section) {
  let known = values.get(section);
  if (!known) {
    const url = section.dataset.values || `${panelsPath}/${section.dataset.panel}.json${location.search}`;
    known = fetch(url).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
    values.set(section, known);
  }
  return known;
}

// ---- Crosshair and tooltip, shared by all plots of the page.

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
body.append(tip);

const nearest = (times, t) => {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    times[middle] < t ? (low = middle + 1) : (high = middle);
  }
  return low > 0 && t - times[low - 1] < times[low] - t ? low - 1 : low;
};

function cross(section, share) {
  const canvas = $(".canvas", section);
  if (!canvas) return null;
  let line = $(".cross", canvas);
  if (!line) {
    line = document.createElement("div");
    line.className = "cross";
    canvas.append(line);
  }
  line.style.left = `${share * 100}%`;
  line.replaceChildren();
  return line;
}

function clearCross() {
  $$(".cross").forEach((line) => line.remove());
  tip.hidden = true;
}

let looking = 0;
async function look(section, share, point) {
  const turn = ++looking;
  const data = await valuesOf(section);
  if (!data || turn !== looking) return;
  const wanted = data.from + share * (data.to - data.from);
  const rows = [];
  let at = wanted;
  data.series.forEach((series, place) => {
    if (!series.t.length || $(`g[data-s="${place}"]`, section)?.classList.contains("off")) return;
    const i = nearest(series.t, wanted);
    if (Math.abs(series.t[i] - wanted) > data.step * 1.5) return;
    at = series.t[i];
    rows.push({ series, i, y: series.y[i] });
  });
  const where = (at - data.from) / (data.to - data.from);
  for (const other of $$("[data-plot]")) cross(other.closest("section,.bigchart"), where);
  const line = cross(section, where);
  for (const { series, y } of rows) {
    const dot = document.createElement("i");
    dot.style.cssText = `--c:${series.color};top:${Math.min(100, Math.max(0, y))}%`;
    line.append(dot);
  }
  show(section, data, rows, at, point);
}

function show(section, data, rows, at, point) {
  if (!rows.length) { tip.hidden = true; return; }
  const time = document.createElement("time");
  time.textContent = timeOf(at);
  const box = $(".canvas", section).getBoundingClientRect();
  const height = ((point.y - box.top) / box.height) * 100;
  const near = point.keyboard ? null : rows.reduce((best, row) => (Math.abs(row.y - height) < Math.abs(best.y - height) ? row : best));
  const order = [...rows].sort((a, b) => Number(b.series.v[b.i]) - Number(a.series.v[a.i]));
  const most = 14;
  const lines = order.slice(0, most).map((row) => {
    const div = document.createElement("div");
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.setProperty("--c", row.series.color);
    const name = document.createElement("span");
    name.className = "n";
    name.textContent = row.series.name;
    const value = document.createElement("b");
    value.textContent = row.series.f[row.i];
    if (row === near && rows.length > 1) div.className = "near";
    div.append(swatch, name, value);
    return div;
  });
  if (order.length > most) {
    const more = document.createElement("div");
    more.className = "sum";
    more.textContent = `${order.length - most} more`;
    lines.push(more);
  }
  tip.replaceChildren(time, ...lines);
  tip.hidden = false;
  const { width, height: tall } = tip.getBoundingClientRect();
  const left = point.x + 16 + width < innerWidth ? point.x + 16 : Math.max(4, point.x - 16 - width);
  const top = Math.min(Math.max(56, point.y - tall / 3), Math.max(56, innerHeight - tall - 8));
  tip.style.transform = `translate(${Math.round(left)}px,${Math.round(top)}px)`;
}

// ---- Pointer: look, and drag to zoom.

let drag = null;
const shareOf = (canvas, x) => {
  const box = canvas.getBoundingClientRect();
  return Math.min(1, Math.max(0, (x - box.left) / box.width));
};
const plotAt = (target) => target instanceof Element && target.closest(".canvas")?.closest("[data-plot]");

document.addEventListener("pointermove", (event) => {
  const plot = drag ? drag.plot : plotAt(event.target);
  if (!plot) {
    if (!tip.hidden && !document.activeElement?.matches("[data-plot]:focus-visible")) clearCross();
    return;
  }
  const canvas = $(".canvas", plot);
  const share = shareOf(canvas, event.clientX);
  if (drag) {
    const [low, high] = [drag.share, share].sort((a, b) => a - b);
    drag.box.style.left = `${low * 100}%`;
    drag.box.style.width = `${(high - low) * 100}%`;
    drag.end = share;
  }
  look(plot.closest("section,.bigchart"), share, { x: event.clientX, y: event.clientY });
});
document.addEventListener("pointerdown", (event) => {
  const plot = plotAt(event.target);
  if (!plot || event.button !== 0 || event.pointerType === "touch") return;
  event.preventDefault();
  plot.focus({ preventScroll: true });
  const canvas = $(".canvas", plot);
  const box = document.createElement("div");
  box.className = "zoom";
  canvas.append(box);
  const share = shareOf(canvas, event.clientX);
  drag = { plot, box, share, end: share };
});
document.addEventListener("pointerup", async () => {
  if (!drag) return;
  const { plot, box, share, end } = drag;
  drag = null;
  box.remove();
  if (Math.abs(end - share) < 0.015) return;
  const data = await valuesOf(plot.closest("section,.bigchart"));
  if (!data) return;
  const [low, high] = [share, end].sort((a, b) => a - b).map((s) => Math.round(data.from + s * (data.to - data.from)));
  go({ from: low, to: Math.max(high, low + 1000) });
});
document.addEventListener("pointercancel", () => { drag?.box.remove(); drag = null; });

// ---- Legend: a click leaves one series, with Ctrl or Shift it toggles.

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("button[data-s]");
  if (button) {
    const section = button.closest("section,.bigchart");
    const buttons = $$("button[data-s]", section);
    const on = (b) => b.getAttribute("aria-pressed") === "true";
    const alone = on(button) && buttons.filter(on).length === 1;
    for (const b of buttons) {
      const state = event.ctrlKey || event.metaKey || event.shiftKey ? (b === button ? !on(b) : on(b)) : alone || b === button;
      b.setAttribute("aria-pressed", state);
      $(`g[data-s="${b.dataset.s}"]`, section)?.classList.toggle("off", !state);
    }
    return;
  }
  // A click elsewhere closes what is open.
  for (const open of $$("details.pop[open]")) if (!open.contains(event.target)) open.open = false;
});
document.addEventListener("pointerover", (event) => {
  const button = event.target instanceof Element && event.target.closest("button[data-s]");
  const section = button && button.closest("section,.bigchart");
  $$(".s.dimmed").forEach((g) => g.classList.remove("dimmed"));
  if (section) $$("g[data-s]", section).forEach((g) => g.classList.toggle("dimmed", g.dataset.s !== button.dataset.s));
});

// ---- Keys.

const pages = { h: "/", d: "/dashboards", a: "/alerts", t: "/targets", e: "/graph", s: "/status" };
let before = "";
document.addEventListener("keydown", (event) => {
  const field = event.target instanceof Element && event.target.closest("input,textarea,select");
  if (field) {
    if (event.key === "Enter" && !event.shiftKey && field.matches("[data-submit]")) {
      event.preventDefault();
      field.form.requestSubmit();
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const plot = document.activeElement?.closest("[data-plot]");
  if (plot && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    event.preventDefault();
    const canvas = $(".canvas", plot);
    const line = $(".cross", plot);
    const now = line ? parseFloat(line.style.left) / 100 : 1;
    const share = Math.min(1, Math.max(0, now + (event.key === "ArrowLeft" ? -0.02 : 0.02)));
    const box = canvas.getBoundingClientRect();
    look(plot.closest("section,.bigchart"), share, { x: box.left + share * box.width, y: box.top + box.height / 3, keyboard: true });
  } else if (before === "g" && pages[event.key]) {
    location.href = pages[event.key];
  } else if (before === "t" && event.key === "z") {
    zoomOut();
  } else if (event.key === "r") {
    refresh();
  } else if (event.key === "v") {
    const section = document.activeElement?.closest("[data-panel]") || $("[data-panel]:hover");
    if (section) go({ viewPanel: query().has("viewPanel") ? null : section.dataset.panel });
  } else if (event.key === "Escape") {
    clearCross();
    $$("details.pop[open]").forEach((open) => { open.open = false; });
    if (query().has("viewPanel") || query().has("kiosk")) go({ viewPanel: null, kiosk: null, view: null });
  }
  before = event.key;
});
async function zoomOut() {
  const section = $("[data-plot]")?.closest("section,.bigchart");
  const data = section && (await valuesOf(section));
  if (!data) return;
  const half = Math.round((data.to - data.from) / 2);
  go({ from: data.from - half, to: Math.min(data.to + half, Date.now()) });
}

// ---- Forms and copying.

document.addEventListener("change", (event) => {
  const form = event.target instanceof Element && event.target.closest("form[data-filters]");
  if (!form) return;
  if (event.target.type === "checkbox") {
    // All and single values exclude each other.
    const all = event.target.value === "$__all";
    for (const box of $$(`input[name="${CSS.escape(event.target.name)}"]`, form)) if (box !== event.target && (all || box.value === "$__all")) box.checked = false;
    return;
  }
  form.requestSubmit();
});
for (const pre of $$("[data-copy]")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($("code", pre).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  pre.append(button);
}
for (const menu of $$(".theme, .tabs a[href*='theme=']")) {
  menu.addEventListener("click", (event) => {
    event.preventDefault();
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme:dark)").matches;
    const next = dark ? "light" : "dark";
    root.dataset.theme = next;
    document.cookie = `theme=${next};path=/;max-age=31536000;samesite=lax`;
    const params = query();
    if (params.has("theme")) { params.delete("theme"); history.replaceState(null, "", `?${params}`); }
  });
}

// ---- Refresh in place: fragments with their tags, quiet when nobody looks.

const tags = new Map();
async function get(url) {
  const headers = tags.has(url) ? { "if-none-match": tags.get(url) } : {};
  const answer = await fetch(url, { headers, cache: "no-store" });
  if (answer.status === 304) return null;
  if (!answer.ok) throw new Error(String(answer.status));
  const tag = answer.headers.get("etag");
  if (tag) tags.set(url, tag);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function swap(old, fresh) {
  // What people have folded out or switched off stays so.
  const off = $$('[aria-pressed="false"]', old).map((b) => b.dataset.s);
  for (const place of off) {
    $(`button[data-s="${place}"]`, fresh)?.setAttribute("aria-pressed", "false");
    $(`g[data-s="${place}"]`, fresh)?.classList.add("off");
  }
  const focused = old.contains(document.activeElement) && document.activeElement.matches("[data-plot]");
  old.replaceWith(fresh);
  if (focused) $("[data-plot]", fresh)?.focus({ preventScroll: true });
}

const isVisible = (section) => {
  const box = section.getBoundingClientRect();
  return box.width > 0 && box.bottom > -200 && box.top < innerHeight + 200;
};

async function loadPanels(sections) {
  for (let at = 0; at < sections.length; at += 8) {
    const part = sections.slice(at, at + 8).filter((s) => s.isConnected && !s.contains($("details[open]", s)));
    if (!part.length) continue;
    const params = query();
    params.set("panels", part.map((s) => s.dataset.panel).join(","));
    const page = await get(`${panelsPath}/panels?${params}`);
    if (!page) continue;
    for (const old of part) {
      const fresh = page.getElementById(old.id);
      if (fresh) { swap(old, document.adoptNode(fresh)); unseen?.observe(fresh); }
    }
  }
}

const unseen = panelsPath && "IntersectionObserver" in window
  ? new IntersectionObserver((entries) => {
      const due = entries.filter((e) => e.isIntersecting && "later" in e.target.dataset).map((e) => e.target);
      for (const section of due) { unseen.unobserve(section); delete section.dataset.later; }
      if (due.length) loadPanels(due).catch(stale);
    }, { rootMargin: "300px" })
  : null;
$$("[data-later]").forEach((section) => unseen?.observe(section));

let since = null;
function stale() {
  since ||= new Date();
  const live = $("[data-live]");
  if (!live) return;
  live.classList.add("stale");
  $("[data-live-text]").textContent = `Stale since ${since.toTimeString().slice(0, 5)}`;
}
function fresh() {
  if (!since) return;
  since = null;
  $("[data-live]")?.classList.remove("stale");
  const text = $("[data-live-text]");
  if (text) text.textContent = every ? `Live · ${every} s` : "Paused";
}

let running = false;
async function refresh() {
  if (running) return;
  running = true;
  body.classList.add("busy");
  try {
    if (panelsPath) {
      await loadPanels($$("section[data-panel]:not([data-later])").filter((s) => isVisible(s) && s.dataset.type !== "text"));
    } else {
      const page = await get(location.href);
      if (page) {
        document.title = page.title;
        for (const old of $$("[data-live-id]")) {
          const next = $(`[data-live-id="${old.dataset.liveId}"]`, page);
          if (next && next.innerHTML !== old.innerHTML) old.replaceWith(document.adoptNode(next));
        }
      }
    }
    fresh();
    failures = 0;
  } catch {
    failures += 1;
    stale();
  } finally {
    running = false;
    body.classList.remove("busy");
  }
}

const every = Number(body.dataset.refresh) || 0;
let failures = 0;
async function tick() {
  if (!document.hidden && tip.hidden && !drag) await refresh();
  setTimeout(tick, every * 1000 * Math.min(8, 2 ** failures));
}
if (every > 0) setTimeout(tick, every * 1000);
document.addEventListener("visibilitychange", () => { if (every > 0 && !document.hidden) refresh(); });
