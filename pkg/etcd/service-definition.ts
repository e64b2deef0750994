/**
 * The part of etcd's API that we speak, in the JSON form of protobuf.js: fields and numbers are those
 * of etcd's `api/etcdserverpb/rpc.proto` and `api/mvccpb/kv.proto`, the same from 3.0 on. As data and
 * not as .proto text, so that the program stays one file.
 */
import type { fromJSON } from '@grpc/proto-loader';

type Descriptor = Parameters<typeof fromJSON>[0];

/** `name: 'number type'`, or `'number repeated type'`. */
function message(fields: Readonly<Record<string, string>>): object {
  return {
    fields: Object.fromEntries(
      Object.entries(fields).map(([name, text]) => {
        const [id, ...words] = text.split(' ');
        const rule = words.length === 2 ? { rule: 'repeated' } : {};
        return [name, { id: Number(id), type: words.at(-1), ...rule }];
      }),
    ),
  };
}

/** A message of which one field is set: protobuf.js then tells which. */
function choice(name: string, fields: Readonly<Record<string, string>>, rest = {}): object {
  return { ...message({ ...rest, ...fields }), oneofs: { [name]: { oneof: Object.keys(fields) } } };
}

/** Methods whose messages are called after them. */
function service(unary: readonly string[], streaming: readonly string[] = []): object {
  const method = (name: string, stream: boolean): readonly [string, object] => {
    const types = { requestType: `${name}Request`, responseType: `${name}Response` };
    return [name, stream ? { ...types, requestStream: true, responseStream: true } : types];
  };
  return {
    methods: Object.fromEntries([
      ...unary.map((name) => method(name, false)),
      ...streaming.map((name) => method(name, true)),
    ]),
  };
}

const header = '1 ResponseHeader';

export const etcdServices: Descriptor = {
  nested: {
    mvccpb: {
      nested: {
        KeyValue: message({
          key: '1 bytes',
          createRevision: '2 int64',
          modRevision: '3 int64',
          version: '4 int64',
          value: '5 bytes',
          lease: '6 int64',
        }),
        EventType: { values: { PUT: 0, DELETE: 1 } },
        Event: message({ type: '1 EventType', kv: '2 KeyValue' }),
      },
    },
    etcdserverpb: {
      nested: {
        ResponseHeader: message({ revision: '3 int64' }),
        RangeRequest: message({ key: '1 bytes', rangeEnd: '2 bytes' }),
        RangeResponse: message({ header, kvs: '2 repeated mvccpb.KeyValue' }),
        PutRequest: message({ key: '1 bytes', value: '2 bytes', lease: '3 int64' }),
        PutResponse: message({ header }),
        DeleteRangeRequest: message({ key: '1 bytes', rangeEnd: '2 bytes' }),
        DeleteRangeResponse: message({ header, deleted: '2 int64' }),
        CompareTarget: { values: { VERSION: 0, CREATE: 1, MOD: 2, VALUE: 3, LEASE: 4 } },
        Compare: choice(
          'targetUnion',
          { createRevision: '5 int64', modRevision: '6 int64' },
          // `result` 0, the default, is EQUAL.
          { target: '2 CompareTarget', key: '3 bytes' },
        ),
        RequestOp: choice('request', {
          requestPut: '2 PutRequest',
          requestDeleteRange: '3 DeleteRangeRequest',
        }),
        TxnRequest: message({ compare: '1 repeated Compare', success: '2 repeated RequestOp' }),
        TxnResponse: message({ header, succeeded: '2 bool' }),
        WatchCreateRequest: message({
          key: '1 bytes',
          rangeEnd: '2 bytes',
          startRevision: '3 int64',
        }),
        WatchRequest: choice('requestUnion', { createRequest: '1 WatchCreateRequest' }),
        WatchResponse: message({
          header,
          created: '3 bool',
          canceled: '4 bool',
          compactRevision: '5 int64',
          cancelReason: '6 string',
          events: '11 repeated mvccpb.Event',
        }),
        LeaseGrantRequest: message({ TTL: '1 int64', ID: '2 int64' }),
        LeaseGrantResponse: message({ header, ID: '2 int64', TTL: '3 int64' }),
        LeaseRevokeRequest: message({ ID: '1 int64' }),
        LeaseRevokeResponse: message({ header }),
        LeaseKeepAliveRequest: message({ ID: '1 int64' }),
        LeaseKeepAliveResponse: message({ header, ID: '2 int64', TTL: '3 int64' }),
        AuthenticateRequest: message({ name: '1 string', password: '2 string' }),
        AuthenticateResponse: message({ header, token: '2 string' }),
        KV: service(['Range', 'Txn']),
        Lease: service(['LeaseGrant', 'LeaseRevoke'], ['LeaseKeepAlive']),
        Watch: service([], ['Watch']),
        Auth: service(['Authenticate']),
      },
    },
  },
};
