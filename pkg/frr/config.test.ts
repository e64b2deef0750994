import { describe, expect, test } from 'vitest';
import { parseFrrConfig } from './config.ts';

const running = `frr version 8.4.4
frr defaults traditional
!
hostname a
! "log stdout" enabled by "--log" startup option
!
router bgp 64512
 bgp router-id 192.168.1.1
 neighbor 10.0.0.1 remote-as 65000
 !
 address-family ipv4 unicast
  network 10.244.1.0/24 route-map PODWIRE-PODS
 exit-address-family
 !
 address-family l2vpn evpn
  advertise-all-vni
 exit-address-family
 neighbor 10.0.0.2 remote-as 65000
exit
!
router bgp 64512 vrf blue
 address-family ipv4 unicast
  network 10.9.0.0/16
 exit-address-family
exit
!
ip prefix-list PODWIRE-OWN-4 seq 5 permit 10.244.1.0/24
!
route-map PODWIRE-OUT-4 permit 10
 match ip address prefix-list PODWIRE-OWN-4
exit
!
end
`;

describe('parseFrrConfig()', () => {
  test('lines, each in its block', () => {
    const { lines, router } = parseFrrConfig(running);
    expect(router).toEqual({ asNumber: 64_512, header: 'router bgp 64512' });
    expect(lines.map(({ block, text }) => `${block} | ${text}`)).toEqual([
      ' | frr version 8.4.4',
      ' | frr defaults traditional',
      ' | hostname a',
      ' | router bgp 64512',
      'router | bgp router-id 192.168.1.1',
      'router | neighbor 10.0.0.1 remote-as 65000',
      'router ipv4 | network 10.244.1.0/24 route-map PODWIRE-PODS',
      'router address-family l2vpn evpn | advertise-all-vni',
      'router | neighbor 10.0.0.2 remote-as 65000',
      ' | router bgp 64512 vrf blue',
      'router bgp 64512 vrf blue | address-family ipv4 unicast',
      'router bgp 64512 vrf blue | network 10.9.0.0/16',
      ' | ip prefix-list PODWIRE-OWN-4 seq 5 permit 10.244.1.0/24',
      ' | route-map PODWIRE-OUT-4 permit 10',
      'route-map PODWIRE-OUT-4 permit 10 | match ip address prefix-list PODWIRE-OWN-4',
    ]);
  });

  test('without "exit", as FRR 7 writes it', () => {
    const { lines, router } = parseFrrConfig(running.replaceAll(/^exit\n/gm, ''));
    expect(router?.asNumber).toBe(64_512);
    expect(lines).toEqual(parseFrrConfig(running).lines);
  });

  test.each([
    ['router bgp 65546', 65_546],
    ['router bgp 1.10', 65_546],
    ['router bgp 1.10 as-notation dot', 65_546],
    ['router bgp 64512 vrf blue', undefined],
    ['router bgp 64512 view blue', undefined],
    ['router ospf', undefined],
  ])('the AS number of "%s"', (line, asNumber) => {
    expect(parseFrrConfig(`${line}\nexit\n`).router?.asNumber).toBe(asNumber);
  });
});
