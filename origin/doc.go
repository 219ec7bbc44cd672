// Package origin is an HTTP client for servers that settings or answers of other servers name, and which are
// therefore not to be trusted with what this host can reach: the edge and the Hub's mirror fetch with it.
//
// # Terms
//
// An origin is a scheme, a host and a port, as browsers mean it. The named URL is the one that an operator wrote
// down; its origin is the only one that sees credentials. A private address is one that is not reachable by
// everybody: loopback, link-local (with the metadata services of clouds), private and shared ranges, multicast,
// documentation, and IPv6 addresses that contain such an IPv4 address.
//
// # What it guards against
//
//  1. A redirect or a DNS name that leads into a private network. Each address is checked when a socket is about to
//     connect to it, after the name was resolved, so a name that resolves differently the second time gains nothing.
//     An address that the named URL spells out is allowed at its port, because the operator named it.
//  2. A redirect that carries secrets away. Credentials are added at the named URL's origin only, and once a chain
//     has left the origin it began at, nothing that the caller set as a secret goes along, even on its way back.
//  3. A redirect without end, to a scheme that is not HTTP, or from TLS to plain text.
//  4. An answer without end: headers and body are bounded, and so is the time in which nothing comes.
//
// # What it does not do
//
// It does not retry, cache or choose between servers. It does not go through a proxy, behind which an address cannot
// be checked. It speaks HTTP/1.1, one connection for each request: what a server sends beyond the length that it
// announced is then never taken for an answer, and for large bodies, which it is for, the handshake does not count.
package origin
