// Short names for what all modules do with the document.

export const $ = (id) => document.getElementById(id);

/** An element with these properties and children. */
export function make(tag, properties = {}, ...children) {
	const element = Object.assign(document.createElement(tag), properties);
	element.append(...children);
	return element;
}
