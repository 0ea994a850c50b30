/** Dark unless the user asks for light or for what the system prefers; charts ask here for their colours. */

const KEY = "epi.theme";
const media = matchMedia("(prefers-color-scheme: light)");
const listeners = new Set();

/** What the user chose: "dark" (the default), "light" or "system". */
export const themeChoice = () => localStorage.getItem(KEY) ?? "dark";

/** What is shown: "dark" or "light". */
export function theme() {
  const choice = themeChoice();
  if (choice !== "system") return choice;
  return media.matches ? "light" : "dark";
}

function apply() {
  document.documentElement.dataset.theme = theme();
  for (const listener of listeners) listener();
}

export function chooseTheme(choice) {
  localStorage.setItem(KEY, choice);
  apply();
}

export const toggleTheme = () => chooseTheme(theme() === "dark" ? "light" : "dark");

export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The value of a custom property, for canvases. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

media.addEventListener("change", apply);
apply();
