/** The configuration file's words in those of the pod network. */
import type { NodeConfig } from '#pkg/config/node-config.ts';
import type { WireguardSecrets } from '#pkg/host-network/rtnetlink-wireguard.ts';
import { presharedKeyName, publicKeyOf } from '#pkg/host-network/wireguard-key.ts';
import type { PodNetworkOptions } from '#pkg/pod-network/desired.ts';
import { linkWishes } from './link-wishes.ts';

/** UDP ports as flannel has them: Linux' own for VXLAN, its own for plain UDP. */
const defaultPorts: Readonly<Record<string, number>> = { udp: 8285 };
const defaultVxlanPort = 8472;

/** @param secrets of the backend wireguard; undefined for the others */
export function podNetworkOptions(
  nodeName: string,
  config: NodeConfig,
  secrets: WireguardSecrets | undefined,
): PodNetworkOptions {
  const { backend, wireguard, bgp } = config;
  return {
    nodeName,
    backend,
    vni: config.vni,
    port: config.port ?? defaultPorts[backend] ?? defaultVxlanPort,
    groupPolicy: config.gbp,
    directRouting: config.directRouting,
    link: undefined,
    linkWishes: linkWishes(config),
    mtuBytes: config.mtu,
    masquerade: config.masquerade,
    randomFully: config.masqueradeRandomFully,
    forwardAccept: config.forwardAccept,
    nonMasqueradeCIDRs: config.nonMasqueradeCIDRs,
    annotationPrefix: config.annotationPrefix,
    families: config.ipFamilies,
    clusterCIDRs: config.clusterCIDRs,
    bgp: { asNumber: bgp.asNumber, reflectors: bgp.reflectors },
    ...(secrets === undefined
      ? {}
      : {
          wireguard: {
            mode: wireguard.mode,
            publicKey: publicKeyOf(secrets.privateKey),
            port: wireguard.listenPort,
            portV6: wireguard.listenPortV6,
            keepaliveSeconds: wireguard.persistentKeepaliveSeconds,
            presharedKey: secrets.presharedKey && presharedKeyName(secrets.presharedKey),
          },
        }),
  };
}
