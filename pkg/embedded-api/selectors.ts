/**
 * Label and field selectors as lists and watches take them
 * (k8s.io/apimachinery pkg/labels/selector.go and pkg/fields/selector.go).
 */
import { badRequest } from './api-error.ts';
import { textAt, type JsonObject } from './json.ts';
import type { KubeObject } from './object.ts';

/** Whether an object is selected. */
export type Selector = (object: KubeObject) => boolean;

type LabelTest = (labels: Readonly<Record<string, string>>) => boolean;

const everything: Selector = () => true;

/**
 * Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`. As in Kubernetes, `!=` and `notin` also select
 * objects without the label.
 *
 * @throws {ApiError} BadRequest
 */
export function parseLabelSelector(text: string): Selector {
  if (text.trim() === '') return everything;
  const tests = splitOutsideParentheses(text).map((part) => parseRequirement(part.trim(), text));
  return (object) => {
    const labels = object.metadata.labels ?? {};
    return tests.every((test) => test(labels));
  };
}

const requirement =
  /^(?:(?<absent>!)\s*(?<missing>[^\s!=,()<>]+)|(?<key>[^\s!=,()<>]+)(?:\s*(?<op>==|=|!=)\s*(?<value>[^\s!=,()<>]*)|\s+(?<set>in|notin)\s*\((?<values>[^()]*)\)|\s*(?<order>[<>])\s*(?<number>-?\d+))?)$/;

function parseRequirement(part: string, whole: string): LabelTest {
  const groups = requirement.exec(part)?.groups;
  if (groups === undefined) {
    throw badRequest(
      `unable to parse requirement: found ${JSON.stringify(part)} in ${JSON.stringify(whole)}`,
    );
  }
  const { absent, missing, op, value, set, values, order, number } = groups;
  if (absent !== undefined && missing !== undefined) {
    return (labels) => !Object.hasOwn(labels, missing);
  }
  const key = groups['key'] ?? '';
  const has = (labels: Readonly<Record<string, string>>): boolean => Object.hasOwn(labels, key);
  if (op !== undefined) {
    return op === '!='
      ? (labels) => !has(labels) || labels[key] !== value
      : (labels) => has(labels) && labels[key] === value;
  }
  if (set !== undefined && values !== undefined) {
    const listed = new Set(values.split(',').map((item) => item.trim()));
    return set === 'in'
      ? (labels) => has(labels) && listed.has(labels[key] ?? '')
      : (labels) => !has(labels) || !listed.has(labels[key] ?? '');
  }
  if (order !== undefined) {
    const bound = Number(number);
    const isInteger = /^-?\d+$/;
    return (labels) => {
      const text = labels[key] ?? '';
      if (!isInteger.test(text)) return false;
      return order === '<' ? Number(text) < bound : Number(text) > bound;
    };
  }
  return has;
}

function splitOutsideParentheses(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '(') depth += 1;
    else if (text[i] === ')') depth -= 1;
    else if (text[i] === ',' && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  return [...parts, text.slice(start)];
}

/**
 * Parses `spec.nodeName=a,status.phase!=Running`. Only `selectable` paths may be named; the value
 * of a field that is not set is ''.
 *
 * @throws {ApiError} BadRequest
 */
export function parseFieldSelector(text: string, selectable: readonly string[]): Selector {
  if (text.trim() === '') return everything;
  const tests = splitUnescaped(text).map((part) => {
    const groups = /^(?<path>[^=!]+?)(?<op>==|=|!=)(?<value>.*)$/.exec(part)?.groups;
    if (groups === undefined) {
      throw badRequest(
        `invalid selector: ${JSON.stringify(text)}; can't understand ${JSON.stringify(part)}`,
      );
    }
    const path = (groups['path'] ?? '').trim();
    if (!alwaysSelectable.includes(path) && !selectable.includes(path)) {
      throw badRequest(`field label not supported: ${path}`);
    }
    const keys = path.split('.');
    const value = (groups['value'] ?? '').replaceAll(/\\([\\,=])/g, '$1');
    const equal = groups['op'] !== '!=';
    return (object: JsonObject) => (textAt(object, ...keys) === value) === equal;
  });
  return (object) => tests.every((test) => test(object));
}

const alwaysSelectable = ['metadata.name', 'metadata.namespace'];

/** Splits at commas that no backslash escapes. */
function splitUnescaped(text: string): string[] {
  const parts = text.match(/(?:\\.|[^,\\])+/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

/** Objects both selectors select. */
export function bothSelect(a: Selector, b: Selector): Selector {
  if (a === everything) return b;
  if (b === everything) return a;
  return (object) => a(object) && b(object);
}

/** Whether labels match an equality selector such as a Service's; an empty one matches all. */
export function labelsMatch(
  labels: Readonly<Record<string, string>>,
  wanted: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}
