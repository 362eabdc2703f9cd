// Names and limits that the functions, the command line and this construct agree on. Plain values, no AWS resources.

/** The functions by role; each is built by cargo-lambda into `<codeDir>/<binary>/bootstrap`. */
export const BINARIES = {
  ingest: 'siltstone-ingest',
  compact: 'siltstone-compact',
  maintain: 'siltstone-maintain',
} as const;

export type Role = keyof typeof BINARIES;

/** Prefix of Siltstone's own objects in the bucket; never inside a table's prefix. */
export const OWN_PREFIX = '_siltstone';

/** Namespace of the metrics that the functions log. */
export const METRICS_NAMESPACE = 'Siltstone';

const PLAIN = /^[A-Za-z0-9_-]{1,128}$/;

/** A table in a warehouse. */
export interface TablePlace {
  readonly database: string;
  readonly table: string;
  readonly warehouse: string;
}

/** Checks the names as the functions do, so that a mistake is found at synthesis. */
export function checkPlace(place: TablePlace): void {
  for (const part of [place.database, place.table]) {
    if (!PLAIN.test(part)) {
      throw new Error(`\`${part}\` is not a database or table name: letters, digits, \`_\` and \`-\`, 1 to 128 of them`);
    }
  }
  const parts = place.warehouse.split('/');
  if (place.warehouse !== '' && !parts.every((part) => PLAIN.test(part))) {
    throw new Error(`\`${place.warehouse}\` is not a warehouse prefix: plain names joined by \`/\`, none at the ends`);
  }
}

/** Prefix of the table's objects, without trailing `/`. */
export function location(place: TablePlace): string {
  const own = `${place.database}.db/${place.table}`;
  return place.warehouse === '' ? own : `${place.warehouse}/${own}`;
}

/** Prefix of the table's objects of one kind under Siltstone's own prefix (`tasks`, `quarantine`, ...), with trailing `/`. */
export function ownPrefix(place: TablePlace, kind: string): string {
  return `${OWN_PREFIX}/${kind}/${location(place)}/`;
}

/** Partition key of the table's items. */
export function itemsPartition(place: TablePlace): string {
  return `table#${location(place)}`;
}
