// The answer of POST /explain -> what sight.js shows.

/** { input, groups }, or null where the answer holds no picture. */
export function adapt(answer) {
  if (!answer.input) return null;
  const blocks = answer.attention?.blocks ?? [];
  return { input: answer.input, groups: [] };
}
