// The request that was just made, as code to paste elsewhere.

import { $, make } from "../dom.js";
import { mediaType, service, url } from "../service.js";

const INLINE_BYTES = 16 * 1024; // a picture this small travels inside the snippet

const LANGUAGES = { curl, Python: python };
let language = "curl";
let shown = null; // { path, pictures, inline }

/** Sets up the tabs and the copy button. */
export function initSnippets() {
	const tabs = Object.keys(LANGUAGES).map((name) => {
		const tab = make("button", { id: `tab-${name}`, role: "tab", textContent: name });
		tab.setAttribute("aria-controls", "snippet");
		tab.onclick = () => select(name);
		return tab;
	});
	$("tabs").replaceChildren(...tabs);
	$("tabs").addEventListener("keydown", (event) => {
		const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
		if (!step) return;
		const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
		next.focus();
		next.click();
	});
	$("copy").onclick = copy;
	select(language);
}

/**
 * Shows how to make a request.
 *
 * pictures: [{ name, blob, onDisk }]; several make a batch.
 */
export async function showRequest(path, pictures) {
	const [{ blob, name, onDisk }] = pictures;
	const inline = !onDisk && blob.size <= INLINE_BYTES ? await base64(blob) : null;
	shown = { path, pictures, inline };
	$("request").hidden = false;
	URL.revokeObjectURL($("save").href);
	$("save").hidden = onDisk;
	$("save").href = onDisk ? "#" : URL.createObjectURL(blob);
	$("save").download = name;
	render();
}

export const hideRequest = () => ($("request").hidden = true);

function select(name) {
	language = name;
	for (const tab of $("tabs").children) {
		const selected = tab.textContent === name;
		tab.setAttribute("aria-selected", selected);
		tab.tabIndex = selected ? 0 : -1;
		if (selected) $("snippet").setAttribute("aria-labelledby", tab.id);
	}
	render();
}

function render() {
	if (!shown) return;
	// The picture's text is there to be copied, but not to be looked at in full.
	const [before, after] = LANGUAGES[language](shown).split(shown.inline ?? "\0");
	const nodes = [before];
	if (after !== undefined) {
		nodes.push(make("span", { className: "elided", textContent: shown.inline }), after);
	}
	$("snippet").replaceChildren(...nodes);
}

async function copy() {
	let outcome = "Copied";
	try {
		await navigator.clipboard.writeText($("snippet").textContent);
	} catch {
		// No clipboard without HTTPS: leave it selected for Ctrl+C.
		getSelection().selectAllChildren($("snippet"));
		outcome = "Press Ctrl+C";
	}
	$("copy").textContent = outcome;
	setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

function curl({ path, pictures, inline }) {
	const key = service.key ? '-H "Authorization: Bearer $PERCEIVER_API_KEY" ' : "";
	if (pictures.length > 1) {
		const files = pictures.map(({ name }) => `-F ${shell(`files=@"${name.replace(/["\\]/g, "\\$&")}"`)}`);
		return `curl ${key}${files.join(" \\\n  ")} \\\n  ${url(path)}`;
	}
	const [{ name, blob }] = pictures;
	const send = `curl ${key}-H ${shell(`Content-Type: ${mediaType(blob)}`)}`;
	if (inline) return `echo ${inline} | base64 -d |\n  ${send} --data-binary @- ${url(path)}`;
	return `${send} \\\n  --data-binary ${shell(`@${name}`)} ${url(path)}`;
}

function python({ path, pictures, inline }) {
	const [{ name, blob }] = pictures;
	const several = pictures.length > 1;
	const headers = several ? [] : [`"Content-Type": ${text(mediaType(blob))}`];
	if (service.key) headers.push('"Authorization": "Bearer " + os.environ["PERCEIVER_API_KEY"]');
	const imports = [inline && "base64", service.key && "os", "httpx"].filter(Boolean);
	const given = several
		? `names = [\n${pictures.map((each) => `    ${text(each.name)},\n`).join("")}]
files = [("files", open(name, "rb")) for name in names]`
		: `image = ${inline ? `base64.b64decode("${inline}")` : `open(${text(name)}, "rb").read()`}`;
	return `${imports.map((module) => `import ${module}\n`).join("")}
${given}
headers = {${headers.join(", ")}}
answer = httpx.post(${text(url(path))}, headers=headers, ${several ? "files=files" : "content=image"})
print(answer.json())`;
}

const shell = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
const text = (value) => JSON.stringify(value); // a JSON string is a Python string

async function base64(blob) {
	const bytes = new Uint8Array(await blob.arrayBuffer());
	return btoa(bytes.reduce((all, byte) => all + String.fromCharCode(byte), ""));
}
