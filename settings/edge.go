package settings

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// EdgeCache is the cache before origins.
type EdgeCache struct {
	Size  Size     `toml:"size" doc:"most of the disk that cached content may take"`
	TTL   Duration `toml:"ttl" doc:"how long something named is served without asking its origin again, if that does not say"`
	Stale Duration `toml:"stale" doc:"how much longer it is served while no source of its origin answers"`
	// Origins are the sources. Without any there is no edge.
	Origins []EdgeOrigin `toml:"origin" doc:"servers to cache, each with name and kind (url, s3, gateway or swarm); those of one name have the same content"`
}

// EdgeOrigin is one server, or the swarm.
type EdgeOrigin struct {
	Name         string   `toml:"name" doc:"what it is asked for by: /edge/NAME/path"`
	Kind         string   `toml:"kind" doc:"url (the default), s3, gateway or swarm"`
	URL          string   `toml:"url" doc:"what all that is asked for is below; of s3, the endpoint; of a gateway, without /ipfs"`
	Priority     int      `toml:"priority" doc:"sources of one name are asked in this order while they are healthy, the lowest first"`
	AllowPrivate bool     `toml:"allow_private" doc:"whether names and redirects may lead to addresses in private networks"`
	TTL          Duration `toml:"ttl" doc:"in place of edge.ttl, if not 0s"`
	TokenFile    string   `toml:"token_file" doc:"file with a token that goes along as Authorization: Bearer; relative to the home"`
	PassAuth     bool     `toml:"pass_authorization" doc:"whether clients' Authorization goes along; what they get so is not cached"`
	Bucket       string   `toml:"bucket" doc:"of s3: the bucket"`
	Prefix       string   `toml:"prefix" doc:"of s3: what all keys begin with"`
	Region       string   `toml:"region" doc:"of s3: where it is, us-east-1 by default"`
	Credentials  string   `toml:"credentials" doc:"of s3: file of keys as AWS's tools write it, relative to the home; without, AWS_ACCESS_KEY_ID and so on"`
	Profile      string   `toml:"profile" doc:"of s3: which keys of the file"`
}

// The kinds of an EdgeOrigin.
const (
	EdgeURL     = "url"
	EdgeS3      = "s3"
	EdgeGateway = "gateway"
	EdgeSwarm   = "swarm"
)

func defaultEdge() EdgeCache {
	return EdgeCache{Size: 10_000_000_000, TTL: Duration(time.Hour), Stale: Duration(24 * time.Hour)}
}

const mostOrigins = 100

var originName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (e *EdgeCache) check() error {
	errs := []error{
		between("edge.size", e.Size, 8<<20, 1<<50),
		between("edge.ttl", e.TTL, 0, Duration(365*24*time.Hour)),
		between("edge.stale", e.Stale, 0, Duration(365*24*time.Hour)),
	}
	if n := len(e.Origins); n > mostOrigins {
		errs = append(errs, Wrong("edge.origin", n, fmt.Sprintf("at most %d of them", mostOrigins)))
	}
	for i := range e.Origins {
		errs = append(errs, e.Origins[i].check())
	}
	return errors.Join(errs...)
}

func (o *EdgeOrigin) check() error {
	const key = "edge.origin."
	var errs []error
	wrong := func(field string, value any, right string) { errs = append(errs, Wrong(key+field, value, right)) }
	if !originName.MatchString(o.Name) {
		wrong("name", o.Name, "letters, digits, dots, dashes and underscores, at most 64")
	}
	switch o.Kind {
	case "", EdgeURL, EdgeGateway, EdgeS3:
		if !isWebURL(o.URL) {
			wrong("url", o.URL, "a URL without user name and query, such as https://models.example/public, for origin "+o.Name)
		}
	case EdgeSwarm:
		if o.URL != "" {
			wrong("url", o.URL, "not set for the swarm, which is this node's peers")
		}
	default:
		wrong("kind", o.Kind, "url, s3, gateway or swarm")
	}
	if o.Kind == EdgeS3 && o.Bucket == "" {
		wrong("bucket", o.Bucket, "the name of a bucket, for origin "+o.Name)
	}
	if o.Kind != EdgeS3 && (o.Bucket != "" || o.Prefix != "" || o.Region != "" || o.Credentials != "" || o.Profile != "") {
		wrong("bucket", o.Bucket, `not set unless kind is "s3", like prefix, region, credentials and profile`)
	}
	return errors.Join(errs...)
}
