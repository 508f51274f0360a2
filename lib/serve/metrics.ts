/** Counters, gauges and histograms in the text format that Prometheus collects (version 0.0.4). */

/** Values of a metric's labels, in the order of its label names. */
type Labels = readonly (string | number)[];

function escapeLabel(value: string): string {
  return value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}

function labelText(names: readonly string[], values: Labels): string {
  const pairs = names.map((name, i) => `${name}="${escapeLabel(String(values[i]))}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/** A number that only grows, per set of labels. */
export class Counter {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: readonly string[];
  readonly #values = new Map<string, number>();

  constructor(name: string, help: string, labels: readonly string[] = []) {
    this.#name = name;
    this.#help = help;
    this.#labels = labels;
    if (labels.length === 0) this.#values.set("", 0);
  }

  add(amount: number, ...labels: Labels): void {
    const key = labelText(this.#labels, labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
  }

  lines(): string[] {
    const rows = [...this.#values].map(([key, value]) => `${this.#name}${key} ${value}`);
    return [`# HELP ${this.#name} ${this.#help}`, `# TYPE ${this.#name} counter`, ...rows];
  }
}

/** How often values fell below each bound, with their sum, per set of labels. */
export class Histogram {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: readonly string[];
  readonly #bounds: readonly number[];
  readonly #rows = new Map<string, { labels: Labels; counts: number[]; sum: number }>();

  constructor(
    name: string,
    help: string,
    bounds: readonly number[],
    labels: readonly string[] = [],
  ) {
    this.#name = name;
    this.#help = help;
    this.#bounds = bounds;
    this.#labels = labels;
  }

  observe(value: number, ...labels: Labels): void {
    const key = labels.join("\0");
    const empty = { labels, counts: new Array<number>(this.#bounds.length + 1).fill(0), sum: 0 };
    const row = this.#rows.get(key) ?? empty;
    const at = this.#bounds.findIndex((bound) => value <= bound);
    row.counts[at < 0 ? this.#bounds.length : at]++;
    row.sum += value;
    this.#rows.set(key, row);
  }

  lines(): string[] {
    const out = [`# HELP ${this.#name} ${this.#help}`, `# TYPE ${this.#name} histogram`];
    for (const { labels, counts, sum } of this.#rows.values()) {
      let below = 0;
      for (const [i, count] of counts.entries()) {
        below += count;
        const bound = i < this.#bounds.length ? this.#bounds[i] : "+Inf";
        const key = labelText([...this.#labels, "le"], [...labels, bound]);
        out.push(`${this.#name}_bucket${key} ${below}`);
      }
      const key = labelText(this.#labels, labels);
      out.push(`${this.#name}_sum${key} ${sum}`, `${this.#name}_count${key} ${below}`);
    }
    return out;
  }
}

/** A value read when it is asked for. */
export function gaugeLines(name: string, help: string, value: number): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, `${name} ${value}`];
}
