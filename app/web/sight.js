// What the model saw, where it looked and what its answer rests on: the maps of POST /explain.

import { $, make } from "./dom.js";

let chosen = ""; // title of the map that is shown large, kept from one picture to the next

/** Shows an answer of /explain. */
export function showSight({ input, attention, attribution }) {
	$("sight").hidden = false;
	paint($("seen"), input, (grey) => [grey, grey, grey]);
	const answer = [
		{ title: "What the answer rests on", map: attribution.map },
		{ title: "Where it looked", map: attention.mean },
	];
	const blocks = attention.blocks.map(({ mean, latents }, index) => {
		const block = `block ${index + 1}`;
		const each = latents.map((map, i) => ({ title: `Where latent ${i + 1} of ${block} looked`, map }));
		return [`Block ${index + 1}`, [{ title: `Where ${block} looked`, map: mean }, ...each]];
	});
	const groups = [["Answer", answer], ...blocks];
	const all = groups.flatMap(([, maps]) => maps);
	const enlarge = ({ title, map }) => {
		chosen = title;
		paintHeat($("looked"), input, map);
		$("looked").ariaLabel = $("looked-caption").textContent = title;
	};
	const first = all.find(({ title }) => title === chosen) ?? all[0];
	enlarge(first);
	const choice = (each) => {
		const canvas = make("canvas", { width: 28, height: 28 });
		paintHeat(canvas, input, each.map);
		const radio = make("input", {
			type: "radio",
			name: "map",
			checked: each === first,
			ariaLabel: each.title,
			onchange: () => enlarge(each),
		});
		return make("label", { title: each.title }, radio, canvas);
	};
	$("maps").replaceChildren(
		...groups.map(([name, maps]) =>
			make("fieldset", {}, make("legend", { textContent: name }), ...maps.map(choice)),
		),
	);
}

export function hideSight() {
	$("sight").hidden = true;
}

/** The map, brightest on the ink; weights are lifted, so that small ones are seen too. */
function paintHeat(canvas, input, map) {
	const peak = Math.max(...map.flat().map(Math.abs)) || 1;
	paint(canvas, input, (grey, y, x) => {
		const weight = map[y][x] / peak;
		return heat(Math.abs(weight) ** 0.7, weight < 0 ? COLD : GLOW, grey);
	});
}

// Black through red and orange to pale yellow, as glowing iron; blue for what spoke against.
const GLOW = [[14, 14, 18], [110, 24, 34], [216, 64, 28], [255, 153, 51], [255, 240, 190]];
const COLD = [[14, 14, 18], [24, 40, 110], [40, 96, 216], [120, 180, 255], [220, 240, 255]];

function heat(weight, colors, grey) {
	const at = weight * (colors.length - 1);
	const low = Math.min(Math.floor(at), colors.length - 2);
	return colors[low].map((value, channel) => {
		const glow = value + (colors[low + 1][channel] - value) * (at - low);
		return glow * (0.45 + (0.55 * grey) / 255) + grey * 0.2;
	});
}

function paint(canvas, rows, color) {
	const context = canvas.getContext("2d");
	const image = context.createImageData(rows[0].length, rows.length);
	let at = 0;
	for (const [y, row] of rows.entries()) {
		for (const [x, grey] of row.entries()) {
			image.data.set([...color(grey, y, x), 255], at);
			at += 4;
		}
	}
	context.putImageData(image, 0, 0);
}
