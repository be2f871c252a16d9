// Calls of the service: problems as errors, the API key, and whether it can be reached.

export const url = (path) => new URL(path, document.baseURI).href;

/** An answer of the service that says why it refused (RFC 9457). */
export class Problem extends Error {
	constructor(status, { title, detail, type } = {}, retryAfter = null) {
		super(detail || title || `The service answered ${status}.`);
		this.title = title || "The service refused";
		this.status = status;
		this.slug = (type || "").split("/").pop();
		this.retryMs = retryAfter === null ? null : 1000 * Math.max(0.2, Number(retryAfter) || 0);
	}
}

/** No answer: the service, or the way to it, is down. */
export class Unreachable extends Error {}

/** Fires "state" when it turns ready, lost or locked; "back" when a lost service answers again. */
class Service extends EventTarget {
	state = "waiting";
	metadata = null;
	key = ""; // lives as long as the page

	/** One call; its response when it is a 2xx. Rejects with Problem, Unreachable or AbortError. */
	async call(path, options = {}) {
		const headers = { ...options.headers };
		if (this.key) headers.Authorization = `Bearer ${this.key}`;
		let response;
		try {
			response = await fetch(url(path), { ...options, headers });
		} catch (error) {
			if (error.name === "AbortError") throw error;
			this.#lose();
			throw new Unreachable();
		}
		if (response.ok) {
			if (this.state !== "lost") this.#turn("ready");
			return response;
		}
		const body = await response.json().catch(() => ({}));
		const problem = new Problem(response.status, body, response.headers.get("Retry-After"));
		if (problem.status === 401) this.#turn("locked");
		if (problem.slug === "not-ready" || !problem.slug && [502, 503, 504].includes(problem.status)) {
			this.#lose();
			throw new Unreachable();
		}
		throw problem;
	}

	/** What an image is read as, from one of the calls that take an image as their body. */
	async read(path, blob, signal) {
		const started = performance.now();
		const response = await this.call(path, {
			method: "POST",
			body: blob,
			headers: { "Content-Type": mediaType(blob), Accept: "application/json" },
			signal,
		});
		const answer = await response.json();
		const stages = parseTiming(response.headers.get("Server-Timing"));
		return { answer, stages, roundTrip: performance.now() - started };
	}

	/** Card, engine and limits; asked anew after a restart, which may have changed the model. */
	async learn() {
		this.metadata = await (await this.call("metadata")).json();
		return this.metadata;
	}

	/** Notices a service that goes away while nothing is asked of it. */
	async check() {
		if (this.state === "ready" && !document.hidden) await this.call("health/ready").catch(() => {});
	}

	#turn(state) {
		if (this.state === state) return;
		this.state = state;
		this.dispatchEvent(new Event("state"));
	}

	async #lose() {
		if (this.state === "lost") return;
		this.#turn("lost");
		for (let attempt = 0; ; attempt++) {
			await new Promise((go) => setTimeout(go, Math.min(2000, 250 * 2 ** attempt)));
			const response = await fetch(url("health/ready")).catch(() => null);
			if (response?.ok) break;
		}
		this.#turn("ready");
		this.dispatchEvent(new Event("back"));
	}
}

export const service = new Service();

/** What to declare an image as; the service goes by the bytes. */
export const mediaType = (blob) => (blob.type.startsWith("image/") ? blob.type : "image/*");

/** Server-Timing -> [name, milliseconds] in the order of the header. */
export function parseTiming(header) {
	return (header || "").split(",").flatMap((part) => {
		const match = part.match(/^\s*([^;\s]+).*?;\s*dur=([\d.]+)/);
		return match ? [[match[1], Number(match[2])]] : [];
	});
}
