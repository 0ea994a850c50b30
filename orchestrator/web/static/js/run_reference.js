/** Which run of a campaign: a configuration and a repetition, written "drop3_late/rep-2" in the journal and the live feed. */

const TEXT = /^([a-z0-9][a-z0-9_.-]{0,63})\/rep-([1-9][0-9]{0,5})$/;

export const formatRun = ({ configuration, repetition }) => `${configuration}/rep-${repetition}`;

/** {configuration, repetition} of a run's text. */
export function parseRun(text) {
  const found = TEXT.exec(text);
  if (!found) throw new Error(`not of the form drop3_late/rep-2: ${text}`);
  return { configuration: found[1], repetition: Number(found[2]) };
}
