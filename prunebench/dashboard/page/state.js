"use strict";
// What is looked at stands in the address behind the #, so that a view can be shared and the back button works.

const DEFAULTS = { view: "scores", share: "prunable", mode: "grid", series: "loss", kind: "disagree" };

const state = {
  get(key) {
    return new URLSearchParams(location.hash.slice(1)).get(key) ?? DEFAULTS[key] ?? "";
  },
  list(key) {
    return new URLSearchParams(location.hash.slice(1)).getAll(key);
  },
  // The address with some of it changed; a value that is empty or the default is left out.
  link(changes) {
    const words = new URLSearchParams(location.hash.slice(1));
    for (const [key, value] of Object.entries(changes)) {
      words.delete(key);
      for (const item of [value].flat()) {
        if (item !== "" && item !== null && (Array.isArray(value) || item !== DEFAULTS[key])) words.append(key, item);
      }
    }
    return "#" + words;
  },
  set(changes, replace = false) {
    const address = state.link(changes);
    if (address === (location.hash || "#")) return;
    history[replace ? "replaceState" : "pushState"](null, "", address);
    render();
  },
};

// An element; what is given as text stays text, whatever it holds.
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function link(changes, ...text) {
  return el("a", { href: state.link(changes) }, ...text);
}

// A few choices, of which one holds: [value, text] each.
function choice(label, key, options) {
  const now = state.get(key);
  const buttons = options.map(([value, text]) =>
    el("button", { type: "button", id: `${key}-${value}`, ariaPressed: String(now === value), onclick: () => state.set({ [key]: value }) }, text));
  return el("span", { className: "choice", role: "group", ariaLabel: label }, buttons);
}

function select(label, key, options, empty) {
  const now = state.get(key);
  const known = options.some(([value]) => value === now);
  const items = [...(empty && !known ? [["", empty]] : []), ...options].map(([value, text]) =>
    el("option", { value, selected: value === now }, text));
  return el("label", {}, el("span", { className: "quiet" }, label),
    el("select", { id: `choose-${key}`, onchange: (event) => state.set({ [key]: event.target.value }) }, items));
}

const format = {
  percent: (value, digits = 2) => (value === null || value === undefined ? "" : `${(100 * value).toFixed(digits)} %`),
  score: (value) => (value === null || value === undefined ? "" : value.toFixed(Math.abs(value) <= 1 ? 4 : 2)),
  count: (value) => (value === null || value === undefined ? "" : value.toLocaleString("en")),
  bytes(value) {
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (value < 1000 || unit === "GB") return value === null || value === undefined ? "" : `${value.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
      value /= 1000;
    }
  },
  seconds(value) {
    if (value === null || value === undefined) return "";
    if (value < 120) return `${value.toFixed(1)} s`;
    const minutes = Math.round(value / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  },
  any(value) {
    if (value === null || value === undefined) return "–";
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  },
};
