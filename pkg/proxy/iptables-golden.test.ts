/** The text for 40 Services of every kind, against one that was written without our renderer. */
import { expect, it } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { renderSave } from '#pkg/iptables/render.ts';
import { fortyServices, fortyServicesText } from './testdata/forty-services/forty-services.ts';
import { ruleset } from './testdata/records.ts';

it('the fixture has 40 Services', () => {
  expect(fortyServices.services).toHaveLength(40);
});

it.each(families)('S2. 40 Services of every kind give the expected text (%s)', (family) => {
  const text = renderSave(ruleset(fortyServices, { family, randomFully: true }));
  expect(text.split('\n')).toEqual(fortyServicesText(family).split('\n'));
});
