package edge

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"github.com/minio/minio-go/v7/pkg/signer"

	"dray"
	"dray/origin"
)

// bucket signs requests to a server that speaks S3, and lists keys. Objects are read with plain requests, signed: so
// ranges, validators and all else are the same as of a web server.
type bucket struct {
	Bucket
	server Source
	keys   *credentials.Credentials
}

const defaultRegion = "us-east-1"

func newBucket(s Source) (*bucket, error) {
	b := &bucket{Bucket: s.Bucket, server: s}
	if b.Region == "" {
		b.Region = defaultRegion
	}
	switch {
	case b.AccessKey != "":
		b.keys = credentials.NewStaticV4(b.AccessKey, b.SecretKey, b.SessionToken)
	case b.File != "" || b.Profile != "":
		if b.File != "" {
			if _, err := os.Stat(b.File); err != nil {
				return nil, fmt.Errorf("origin %s: credentials: %w", s.Name, err)
			}
		}
		b.keys = credentials.NewFileAWSCredentials(b.File, b.Profile)
	default:
		b.keys = credentials.NewEnvAWS()
	}
	return b, nil
}

// under returns the URL below which the bucket's objects are.
func (b *bucket) under(endpoint *url.URL) *url.URL {
	u := *endpoint
	path := strings.TrimSuffix(u.Path, "/") + "/" + b.Name
	if b.Prefix != "" {
		path += "/" + strings.Trim(b.Prefix, "/")
	}
	u.Path, u.RawPath = path, s3utils.EncodePath(path)
	return &u
}

// sign adds who asks to a request (AWS Signature Version 4).
func (b *bucket) sign(r *http.Request) error {
	v, err := b.keys.GetWithContext(&credentials.CredContext{})
	if err != nil {
		return err
	}
	if v.SignerType.IsAnonymous() || v.AccessKeyID == "" {
		return nil
	}
	// The signature is over the path in this spelling, so it is the one that is sent.
	r.URL.RawPath = s3utils.EncodePath(r.URL.Path)
	r.Header.Set("X-Amz-Content-Sha256", emptyHash)
	signed := signer.SignV4(*r, v.AccessKeyID, v.SecretAccessKey, v.SessionToken, b.Region)
	r.Header = signed.Header
	return nil
}

// emptyHash is the SHA-256 of no bytes, which is what requests have for a body.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// list yields the keys, below the bucket's prefix, that begin with prefix, and their sizes.
func (b *bucket) list(ctx context.Context, prefix string) iter.Seq2[listed, error] {
	return func(yield func(listed, error) bool) {
		endpoint, err := b.server.parse()
		if err != nil {
			yield(listed{}, err)
			return
		}
		if endpoint.Path != "" {
			yield(listed{}, fmt.Errorf("origin %s: objects cannot be listed: the endpoint %s is not the root of a server",
				b.server.Name, endpoint))
			return
		}
		guarded := origin.NewClient(origin.Config{
			URL: endpoint, AllowPrivate: b.server.AllowPrivate, Timeout: b.server.Timeout, TLS: b.server.TLS,
		})
		defer guarded.CloseIdleConnections()
		c, err := minio.New(endpoint.Host, &minio.Options{
			Creds: b.keys, Secure: endpoint.Scheme == "https", Region: b.Region, Transport: guarded.Transport,
			BucketLookup: minio.BucketLookupPath, MaxRetries: extraTries,
		})
		if err != nil {
			yield(listed{}, fmt.Errorf("origin %s: %w", b.server.Name, err))
			return
		}
		above := ""
		if b.Prefix != "" {
			above = strings.Trim(b.Prefix, "/") + "/"
		}
		ctx, cancel := context.WithCancel(ctx) // the library lists on a goroutine of its own, which ends with this
		defer cancel()
		for o := range c.ListObjectsIter(ctx, b.Name, minio.ListObjectsOptions{Prefix: above + prefix, Recursive: true}) {
			if o.Err != nil {
				yield(listed{}, b.explain(o.Err))
				return
			}
			if strings.HasSuffix(o.Key, "/") {
				continue // a mark that stands for a directory
			}
			if !yield(listed{key: strings.TrimPrefix(o.Key, above), size: o.Size}, nil) {
				return
			}
		}
	}
}

// listed is one object of a list.
type listed struct {
	key  string
	size int64
}

// explain gives an error of the library a meaning.
func (b *bucket) explain(err error) error {
	r := minio.ToErrorResponse(err)
	switch r.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%w: origin %s: the server does not accept the keys for bucket %s: %w",
			dray.ErrRefused, b.server.Name, b.Name, err)
	case http.StatusNotFound:
		return fmt.Errorf("%w: origin %s: bucket %s: %w", dray.ErrNotFound, b.server.Name, b.Name, err)
	case 0:
		return fmt.Errorf("%w: origin %s: %w", dray.ErrUnreachable, b.server.Name, err)
	}
	return fmt.Errorf("origin %s: bucket %s: %w", b.server.Name, b.Name, err)
}
