/** Starts the page: model, frame, one view at a time by the address's fragment. */

import { h, setAttr, show } from "./dom.js";
import { icon } from "./icons.js";
import { Model } from "./model.js";
import { statusStrip } from "./strip.js";
import { onTheme, theme, toggleTheme } from "./theme.js";
import { campaignView } from "./views/campaign.js";
import { labView } from "./views/lab.js";
import { newCampaignView } from "./views/new_campaign.js";
import { nowView } from "./views/now.js";
import { runView } from "./views/run.js";
import { signInView } from "./views/signin.js";

const VIEWS = {
  now: { word: "Now", icon: "now", make: nowView },
  campaign: { word: "Campaign", icon: "campaign", make: campaignView },
  run: { word: "Run", icon: "run", make: runView },
  lab: { word: "Lab", icon: "lab", make: labView },
};
const MORE_VIEWS = { new: { word: "New campaign", make: newCampaignView } };
const ALL_VIEWS = { ...VIEWS, ...MORE_VIEWS };

const model = new Model();
const page = h("main", { cls: "page", id: "page", tabindex: "-1" });
const links = new Map();
let current = null;

function route() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return ALL_VIEWS[name] ? { name, rest } : { name: "now", rest: [] };
}

function open() {
  const { name, rest } = model.needsToken ? { name: "signin", rest: [] } : route();
  const key = [name, ...rest].join("/");
  if (current?.key === key) return;
  current?.view.close();
  const view = name === "signin" ? signInView(model) : ALL_VIEWS[name].make(model, rest);
  current = { key, name, view };
  page.replaceChildren(view.node);
  page.scrollTop = 0;
  document.title = name === "signin" ? "Sign in · EPI Factory" : `${ALL_VIEWS[name].word} · EPI Factory`;
  for (const [other, link] of links) setAttr(link, "aria-current", other === name ? "page" : null);
  view.opened?.();
}

function rail() {
  const entries = Object.entries(VIEWS).map(([name, { word, icon: iconName }]) => {
    const link = h("a", { cls: "rail__link", href: `#/${name}` }, icon(iconName), word);
    links.set(name, link);
    return link;
  });
  const holder = h("button", { cls: "rail__button", type: "button", onclick: toggleTheme });
  const label = () => {
    const other = theme() === "dark" ? "Light" : "Dark";
    holder.replaceChildren(icon(other === "Light" ? "sun" : "moon"), h("span", { text: other }));
    setAttr(holder, "aria-label", `Switch to the ${other.toLowerCase()} theme`);
  };
  onTheme(label);
  label();
  return h("nav", { cls: "rail", "aria-label": "Views" }, entries, h("span", { cls: "rail__spacer" }), holder);
}

const strip = statusStrip(model);
const shell = h("div", { cls: "shell" }, rail(), strip, page);
document.getElementById("app").replaceChildren(shell);

model.on(["auth"], () => {
  show(strip, !model.needsToken);
  open();
});
window.addEventListener("hashchange", open);
// Ages and the clock move without any message; one second is steady enough for eyes.
setInterval(() => model.tell("tick"), 1000);

model.start();
open();
