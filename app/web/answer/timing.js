// Where the time of the last answer went.

import { $, make } from "../dom.js";

const NAMES = {
	decode: "Decode",
	preprocess: "Preprocess",
	queue: "Queue",
	infer: "Infer",
	other: "Other work",
	network: "Network",
};

/** stages: [name, ms] of Server-Timing, with a total; roundTripMs: as the browser measured it. */
export function showTiming(stages, roundTripMs) {
	const total = stages.find(([name]) => name === "total")?.[1] ?? 0;
	const parts = stages.filter(([name]) => name in NAMES);
	const known = parts.reduce((sum, [, ms]) => sum + ms, 0);
	parts.push(["other", total - known], ["network", roundTripMs - total]);
	const shown = parts.filter(([, ms]) => ms >= 0.05);
	$("timing").hidden = false;
	$("stages").replaceChildren(
		...shown.map(([name, ms]) => {
			const bar = make("i", { className: name });
			bar.style.flexGrow = ms;
			return bar;
		}),
	);
	$("stage-list").replaceChildren(
		...[...shown, ["all", roundTripMs]].map(([name, ms]) => {
			const term = make("dt", { textContent: NAMES[name] ?? "Round trip" });
			const value = make("dd", { textContent: `${ms.toFixed(ms < 10 ? 1 : 0)} ms` });
			return make("div", { className: name }, term, value);
		}),
	);
}
