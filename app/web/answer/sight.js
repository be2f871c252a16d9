// What the model saw, where it looked and what its answer rests on: the maps of POST /explain.

import { $, make } from "../dom.js";

let chosen = ""; // title of the attention map shown large, kept from one picture to the next

/** Shows an answer of /explain. */
export function showSight({ input, attention, attribution }) {
	$("sight").hidden = false;
	paint($("seen"), input, (grey) => [grey, grey, grey]);
	paintHeat($("rested"), input, attribution.map);
	const blocks = attention.blocks.map(({ mean, latents }, index) => {
		const block = `block ${index + 1}`;
		const each = latents.map((map, i) => ({ title: `Where latent ${i + 1} of ${block} looked`, map }));
		return [`Block ${index + 1}`, [{ title: `Where ${block} looked`, map: mean }, ...each]];
	});
	const groups = [["All", [{ title: "Where it looked", map: attention.mean }]], ...blocks];
	const all = groups.flatMap(([, maps]) => maps);
	const enlarge = ({ title, map }) => {
		chosen = title;
		paintHeat($("looked"), input, map);
		$("looked").ariaLabel = $("looked-caption").textContent = title;
	};
	const first = all.find(({ title }) => title === chosen) ?? all[0];
	enlarge(first);
	const choice = (each) => {
		const canvas = make("canvas");
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

export const hideSight = () => ($("sight").hidden = true);

/** The map, brightest on the ink; weights are lifted, so that small ones are seen too. */
function paintHeat(canvas, input, map) {
	const peak = Math.max(...map.flat().map(Math.abs)) || 1;
	paint(canvas, input, (grey, y, x) => {
		const weight = map[y][x] / peak;
		const color = heat(Math.abs(weight) ** 0.6, grey);
		return weight < 0 ? color.reverse() : color;
	});
}

// Black through red and orange to pale yellow, as glowing iron; in reverse, blue.
const GLOW = [[14, 14, 18], [110, 24, 34], [216, 64, 28], [255, 153, 51], [255, 240, 190]];

function heat(weight, grey) {
	const at = weight * (GLOW.length - 1);
	const low = Math.min(Math.floor(at), GLOW.length - 2);
	return GLOW[low].map((value, channel) => {
		const glow = value + (GLOW[low + 1][channel] - value) * (at - low);
		return glow * (0.45 + (0.55 * grey) / 255) + grey * 0.2;
	});
}

function paint(canvas, rows, color) {
	[canvas.width, canvas.height] = [rows[0].length, rows.length];
	const pixels = rows.flatMap((row, y) => row.flatMap((grey, x) => [...color(grey, y, x), 255]));
	const image = new ImageData(new Uint8ClampedArray(pixels), canvas.width);
	canvas.getContext("2d").putImageData(image, 0, 0);
}
