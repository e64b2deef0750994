export const cluster: { readonly services: readonly object[]; readonly slices: readonly object[] };
