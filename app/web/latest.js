// Which of several answers counts.

/** Runs a task for the newest input; what an older one answers, or fails with, is dropped. */
export class Latest {
	#sequence = 0;
	#abort = null;

	/** The task's {value}, or null when a newer one overtook it. */
	async run(task) {
		this.cancel();
		const abort = (this.#abort = new AbortController());
		const mine = this.#sequence;
		try {
			const value = await task(abort.signal);
			return mine === this.#sequence ? { value } : null;
		} catch (error) {
			if (mine === this.#sequence) throw error;
			return null;
		}
	}

	cancel() {
		this.#sequence++;
		this.#abort?.abort();
	}
}

/**
 * Calls `task` at most every `waitMs`, and not while it still works, so that a slow service is not
 * asked faster than it answers; the last call is never lost.
 */
export function paced(task, waitMs) {
	let timer = null;
	let working = false;
	let again = false;
	async function fire() {
		timer = null;
		working = true;
		again = false;
		await task();
		working = false;
		if (again) start();
	}
	function start() {
		if (working) again = true;
		else timer ??= setTimeout(fire, waitMs);
	}
	start.cancel = () => {
		clearTimeout(timer);
		timer = null;
		again = false;
	};
	return start;
}
