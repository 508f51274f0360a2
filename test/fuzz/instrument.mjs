// Makes JavaScript count where it has been: a counter at the start of every function, branch, loop body
// and case, in the array that libFuzzer watches (engine.cpp).
import { readFileSync, writeFileSync } from "node:fs";
import { parseAst } from "vitest/node";

const FUNCTIONS = new Set(["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"]);
const LOOPS = new Set([
  "ForStatement",
  "ForInStatement",
  "ForOfStatement",
  "WhileStatement",
  "DoWhileStatement",
]);

/** Insertions into one file; those at one position stand in the order in which they were made. */
class Rewriter {
  insertions = [];

  constructor(first) {
    this.next = first;
  }

  insert(at, text) {
    this.insertions.push({ at, text });
  }

  count() {
    return `__fuzz[${this.next++}]++`;
  }

  /** A counter at the start of a statement, which becomes a block where it is none. */
  statement(node) {
    if (node.type === "BlockStatement") {
      this.insert(node.start + 1, `${this.count()};`);
      this.visitChildren(node);
      return;
    }
    this.insert(node.start, `{${this.count()};`);
    this.visit(node);
    this.insert(node.end, "}");
  }

  /** A counter before an expression's value. */
  expression(node) {
    this.insert(node.start, `(${this.count()},(`);
    this.visit(node);
    this.insert(node.end, "))");
  }

  visit(node) {
    const special = {
      IfStatement: () => {
        this.visit(node.test);
        this.statement(node.consequent);
        if (node.alternate) this.statement(node.alternate);
        else this.insert(node.end, ` else {${this.count()};}`);
      },
      ConditionalExpression: () => {
        this.visit(node.test);
        this.expression(node.consequent);
        this.expression(node.alternate);
      },
      LogicalExpression: () => {
        this.visit(node.left);
        this.expression(node.right);
      },
      SwitchCase: () => {
        if (node.consequent.length) this.insert(node.consequent[0].start, `${this.count()};`);
        this.visitChildren(node);
      },
    }[node.type];
    if (special) return special();
    if (FUNCTIONS.has(node.type)) {
      node.params.forEach((parameter) => {
        this.visit(parameter);
      });
      if (node.body.type === "BlockStatement") this.statement(node.body);
      else this.expression(node.body);
      return;
    }
    if (LOOPS.has(node.type)) {
      for (const part of ["init", "left", "right", "test", "update"]) {
        if (node[part]) this.visit(node[part]);
      }
      this.statement(node.body);
      return;
    }
    this.visitChildren(node);
  }

  visitChildren(node) {
    for (const value of Object.values(node)) {
      for (const child of Array.isArray(value) ? value : [value]) {
        if (typeof child?.type === "string") this.visit(child);
      }
    }
  }

  apply(source) {
    const sorted = this.insertions
      .map((insertion, order) => ({ ...insertion, order }))
      .sort((a, b) => a.at - b.at || a.order - b.order);
    let out = "";
    let from = 0;
    for (const { at, text } of sorted) {
      out += source.slice(from, at) + text;
      from = at;
    }
    return out + source.slice(from);
  }
}

/** Rewrites the files in place; returns how many counters they have. */
export function instrument(files) {
  let first = 0;
  for (const file of files) {
    const source = readFileSync(file, "utf8");
    const rewriter = new Rewriter(first);
    rewriter.visit(parseAst(source));
    const count = rewriter.next - first;
    const head = `const __fuzz = globalThis.fuzz.counters; globalThis.fuzz.loaded += ${count};`;
    writeFileSync(file, `${head}${rewriter.apply(source)}`);
    first = rewriter.next;
  }
  return first;
}
