/** Messages: include/uapi/linux/netfilter/nfnetlink.h, NFNL_SUBSYS_CTNETLINK << 8, and the message. */
export const IPCTNL_MSG_CT_NEW = 0x100;
export const IPCTNL_MSG_CT_GET = 0x101;
export const IPCTNL_MSG_CT_DELETE = 0x102;

/** Attributes of a flow and its tuples (include/uapi/linux/netfilter/nfnetlink_conntrack.h). */
export const CTA_TUPLE_ORIG = 1;
export const CTA_TUPLE_REPLY = 2;
export const CTA_ID = 12;
export const CTA_TUPLE_IP = 1;
export const CTA_TUPLE_PROTO = 2;
export const CTA_IP_V4_SRC = 1;
export const CTA_IP_V4_DST = 2;
export const CTA_IP_V6_SRC = 3;
export const CTA_IP_V6_DST = 4;
export const CTA_PROTO_NUM = 1;
export const CTA_PROTO_SRC_PORT = 2;
export const CTA_PROTO_DST_PORT = 3;
