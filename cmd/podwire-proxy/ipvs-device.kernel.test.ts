/** Addresses of the host while its devices come and go. */
import { expect, it } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { RTM_GETLINK } from '#pkg/netlink/constants.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { ownAddresses } from './ipvs-device.ts';

it.each(families)('a pod that ends meanwhile is no failure, family %s', async (family) => {
  await using netns = await createScratchNetns('pw-own');
  await netns.batch([
    'link add pod type veth peer name eth0',
    'addr add 192.0.2.1/24 dev eth0',
    'addr add 2001:db8::1/64 dev eth0 nodad',
  ]);
  const sys = await openSys();
  using socket = withNetns(
    sys,
    netns.path,
    () => new NetlinkSocket(sys),
    (error) => {
      throw error;
    },
  );
  expect(ownAddresses(socket, family)).toHaveLength(1);
  const dump: NetlinkSocket['dump'] = (request) => {
    const found = socket.dump(request);
    if (request.type === RTM_GETLINK) deleteLink(socket, 'pod');
    return found;
  };
  expect(ownAddresses({ dump } as NetlinkSocket, family)).toEqual([]);
});
