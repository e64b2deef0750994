import { expect, it } from 'vitest';
import { newsParts } from './model-parts.ts';
import { ServiceModel } from './service-model.ts';
import { asChanges, service, slice } from './testdata/records.ts';

const many = Array.from({ length: 1_000 }, (_, i) => i);
const cluster = {
  services: many.map((i) => service(`ns/s${i}`, { clusterIPs: [`10.96.${i >> 8}.${i & 255}`] })),
  slices: many.map((i) => slice(`ns/s${i}`, [`10.1.${i >> 8}.${i & 255}`])).toReversed(),
};

it('little news is one part, as it came', () => {
  const news = asChanges({ services: cluster.services.slice(0, 3) });
  expect([...newsParts(news)]).toEqual([news]);
});

it('parts give the model that the whole gives, and look at each Service once', () => {
  const whole = new ServiceModel('ip', { name: 'here', zone: undefined });
  whole.update(asChanges(cluster));
  const parted = new ServiceModel('ip', { name: 'here', zone: undefined });
  const parts = [...newsParts(asChanges(cluster))];
  expect(parts.length).toBeGreaterThan(3);
  const changes = parts.flatMap((part) => parted.update(part));
  expect(parted.ports).toEqual(whole.ports);
  expect(changes).toHaveLength(many.length);
});

it('no part is long work, whatever the number of Services', () => {
  const services = Array.from({ length: 10_000 }, (_, i) =>
    service(`ns/s${i}`, { clusterIPs: [`10.${i >> 8}.${i & 255}.1`] }),
  );
  const slices = services.map(({ name }) => slice(`ns/${name}`, ['10.1.0.1']));
  const parts = [...newsParts(asChanges({ services, slices }))];
  const sizes = parts.map((part) => part.services.length + part.slices.length);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(200);
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(20_000);
  // While what belongs together is sorted out.
  expect(sizes.indexOf(200)).toBeGreaterThanOrEqual(4);
});

it('reads news as it goes: what is made while it is read is not made at once', () => {
  let read = 0;
  const counted = <T>(items: readonly T[]): Iterable<T> & { readonly length: number } => ({
    length: items.length,
    *[Symbol.iterator]() {
      for (const item of items) {
        read += 1;
        yield item;
      }
    },
  });
  const { services, slices } = asChanges(cluster);
  const most = { read: 0 };
  for (
    let before = 0, parts = newsParts({ services: counted(services), slices: counted(slices) });
    ;
  ) {
    const { done } = parts.next();
    most.read = Math.max(most.read, read - before);
    before = read;
    if (done === true) break;
  }
  expect(read).toBe(2_000);
  expect(most.read).toBeLessThanOrEqual(1_000);
});

it('slices whose Service is no news are taken in as well', () => {
  const model = new ServiceModel('ip', { name: 'here', zone: undefined });
  model.update(asChanges({ services: cluster.services }));
  for (const part of newsParts(asChanges({ services: [], slices: cluster.slices }))) {
    model.update(part);
  }
  expect(model.ports.size).toBe(1_000);
  expect([...model.ports.values()].every((port) => port.endpoints.all.length === 1)).toBe(true);
});

it('a slice that is gone is gone', () => {
  const model = new ServiceModel('ip', { name: 'here', zone: undefined });
  for (const part of newsParts(asChanges(cluster))) model.update(part);
  const gone = asChanges(cluster).slices.map(({ key }) => ({ key, new: undefined }));
  for (const part of newsParts({ services: [], slices: gone })) model.update(part);
  expect([...model.ports.values()].every((port) => port.endpoints.all.length === 0)).toBe(true);
});
