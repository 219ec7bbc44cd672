package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Who may use the HTTP server, and how they show it.
//
// Without a token and without client certificates the server is on loopback, and whoever can connect may use it, but for a
// browser that is led astray: Host must be a name or address of loopback, or one of http.hosts, else the answer is 421; and
// a request that changes something must not come from another site's page, else it is 403.
//
// With a token every request needs it, but GET and HEAD of /healthz and /readyz, in the header
//
//	Authorization: Bearer TOKEN
//
// as Hub clients send HF_TOKEN. It is not taken from the query, where logs would keep it. A client certificate, where
// http.client_ca is set, is as good. What lacks both is answered with 401 and a body in JSON, {"error":…}.
//
// # How a page logs in
//
// A browser that asks for a page (GET, Accept with text/html) gets, with 401, a form at the same address that asks for
// the token, or takes it from the URL's fragment, #token=TOKEN, which never leaves the browser. It sends
//
//	POST /dash/api/login   {"token":"…"}   →  204, Set-Cookie: dray_session=…; HttpOnly; SameSite=Strict; Path=/
//	POST /dash/api/logout                  →  204, the cookie is cleared
//
// and loads the page again. The cookie is as good as the token for eightHours, EventSource included; after it a page gets 401,
// and should load itself again to show the form. No page ever has to keep the token. Where none is needed, login answers
// 204 without a cookie. Profiles (/debug/pprof/) take the header only.
const (
	sessionCookie = "dray_session"
	eightHours    = 8 * time.Hour
	loginPath     = "/dash/api/login"
	logoutPath    = "/dash/api/logout"
)

// guard decides who comes in. It does not change after it was made.
type guard struct {
	next    http.Handler
	token   []byte          // its SHA-256; nil when there is none
	certs   bool            // client certificates are asked for
	secure  bool            // over TLS
	hosts   map[string]bool // by which clients may call this server beside loopback's names, in lower case
	key     [32]byte        // of sessions
	origins *http.CrossOriginProtection
}

func newGuard(token string, hosts []string) *guard {
	g := &guard{hosts: make(map[string]bool), origins: http.NewCrossOriginProtection()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		g.token = sum[:]
	}
	for _, name := range hosts {
		g.hosts[strings.ToLower(name)] = true
	}
	rand.Read(g.key[:])
	return g
}

func (g *guard) needsToken() bool { return g.token != nil }

// mayListen says why the server must not listen at an address: beyond loopback somebody has to show who they are.
func (g *guard) mayListen(a net.Addr) error {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() || g.needsToken() || g.certs {
		return nil
	}
	return fmt.Errorf("http.listen: %s can be reached from other machines, and anybody there could use this daemon: "+
		"set http.token or http.token_file (DRAY_HTTP_TOKEN; `dray config init --token` makes one up), or http.cert, http.key and "+
		"http.client_ca for mutual TLS, or listen on loopback, 127.0.0.1:4871", a)
}

// ServeHTTP lets a request in or answers why not.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.knows(r.Host) {
		refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("this server does not go by the name %q; use 127.0.0.1 or localhost, "+
			"or have its operator add the name to http.hosts", clip(r.Host)))
		return
	}
	if err := g.origins.Check(r); err != nil {
		refuse(w, http.StatusForbidden, "a page of another site may not change anything here")
		return
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case r.URL.Path == loginPath && r.Method == http.MethodPost:
		g.login(w, r)
	case r.URL.Path == logoutPath && r.Method == http.MethodPost:
		http.SetCookie(w, g.cookie("", -1))
		w.WriteHeader(http.StatusNoContent)
	case g.open(), read && (r.URL.Path == livePath || r.URL.Path == readyPath) && r.URL.RawQuery == "", g.certified(r):
		g.next.ServeHTTP(w, r)
	case g.bears(r):
		r.Header.Del("Authorization") // it is this daemon's own, and must not travel on to an upstream
		g.next.ServeHTTP(w, r)
	case g.inSession(r) && !strings.HasPrefix(r.URL.Path, profilePath):
		g.next.ServeHTTP(w, r)
	case read && strings.Contains(r.Header.Get("Accept"), "text/html"):
		askToken(w)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="dray"`)
		refuse(w, http.StatusUnauthorized, "the token of this daemon is missing or wrong; send it as Authorization: Bearer TOKEN "+
			"(Hub clients: HF_TOKEN)")
	}
}

// open reports whether everybody who can connect may come in.
func (g *guard) open() bool { return g.token == nil && !g.certs }

// knows reports whether clients may call this server so. Who shows a token or a certificate has not been led astray.
func (g *guard) knows(host string) bool {
	if !g.open() && len(g.hosts) == 0 {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if a, err := netip.ParseAddr(name); err == nil && a.Unmap().IsLoopback() {
		return true
	}
	return name == "localhost" || g.hosts[name]
}

func (g *guard) certified(r *http.Request) bool {
	return g.certs && r.TLS != nil && len(r.TLS.VerifiedChains) > 0
}

// bears reports whether a request has the token in its header.
func (g *guard) bears(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return ok && strings.EqualFold(scheme, "Bearer") && g.fits(strings.TrimSpace(token))
}

// fits compares in a time that does not depend on what is compared.
func (g *guard) fits(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return g.token != nil && subtle.ConstantTimeCompare(sum[:], g.token) == 1
}

// A session is a time, after which it is over, and what only this process can have made of it.
func (g *guard) session(until time.Time) string {
	text := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(text, g.seal(text)...))
}

func (g *guard) seal(text []byte) []byte {
	m := hmac.New(sha256.New, g.key[:])
	m.Write(text)
	m.Write(g.token)
	return m.Sum(nil)
}

func (g *guard) inSession(r *http.Request) bool {
	c, err := r.Cookie(sessionCookie)
	if err != nil || g.token == nil {
		return false
	}
	text, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(text) != 8+sha256.Size || !hmac.Equal(g.seal(text[:8]), text[8:]) {
		return false
	}
	return time.Now().Unix() < int64(binary.BigEndian.Uint64(text))
}

func (g *guard) cookie(value string, seconds int) *http.Cookie {
	return &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", MaxAge: seconds, HttpOnly: true, Secure: g.secure,
		SameSite: http.SameSiteStrictMode,
	}
}

func (g *guard) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if g.token == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	var q struct {
		Token string `json:"token"`
	}
	err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&q)
	if err == nil && !g.fits(q.Token) {
		err = errors.New("this is not the daemon's token; it is what http.token or the file http.token_file says")
	}
	if err != nil {
		refuse(w, http.StatusUnauthorized, oneLine(err))
		return
	}
	http.SetCookie(w, g.cookie(g.session(time.Now().Add(eightHours)), int(eightHours.Seconds())))
	w.WriteHeader(http.StatusNoContent)
}

// refuse answers with an error in JSON.
func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(encode(map[string]string{"error": message}), '\n')) // the client may be gone
}

// askToken answers with the form that asks for the token.
func askToken(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Frame-Options", "DENY")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'sha256-"+digestOf(loginScript)+
		"'; style-src 'sha256-"+digestOf(loginStyle)+"'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, loginHead+"<style>"+loginStyle+"</style>"+loginBody+"<script>"+loginScript+"</script>\n")
}

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

const (
	loginHead  = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Dray</title>`
	loginStyle = `:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:26rem;margin:15vh auto;padding:0 1rem}
input,button{font:inherit;padding:.4rem .6rem;width:100%;box-sizing:border-box;margin-top:.5rem}
[role=alert]{min-height:1.5em}`
	loginBody = `<main><h1>Dray</h1><form><label for="token">The token of this daemon</label>
<input id="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form><p role="alert"></p></main>`
	loginScript = `const field = document.getElementById("token"), says = document.querySelector("[role=alert]");
async function login(token) {
  says.textContent = "";
  const answer = await fetch("/dash/api/login", {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({token}),
  });
  if (answer.ok) location.reload();
  else says.textContent = (await answer.json()).error;
}
document.querySelector("form").addEventListener("submit", e => { e.preventDefault(); login(field.value); });
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) { history.replaceState(null, "", location.pathname + location.search); login(given); }`
)
