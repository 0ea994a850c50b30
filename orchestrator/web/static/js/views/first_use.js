/** What a new lab shows: how to start its first campaign. */

import { command, empty } from "../components.js";
import { h } from "../dom.js";

export function firstUse() {
  return empty(
    "campaign",
    "No campaign yet",
    h("p", { text: "A campaign runs every configuration of the matrix on the metered cluster and draws the EPI curve. The quick one takes about a minute and a half:" }),
    command("epi demo --configs baseline,drop4_all --reps 1 --questions 40"),
    h("p", { text: "Or start one of your own from its spec:" }),
    command("epi campaign new my-campaign.toml"),
    h("div", { cls: "row row--centre" }, h("a", { cls: "button", href: "#/lab", text: "Check the lab first" })),
  );
}
