#!/usr/bin/env bash
# Builds the archives of a release into dist/: for each platform the static binary, the manual pages, the completions and what
# deploy/ holds. The same commit gives the same bytes wherever it is built with the same Go: no path, clock or user of this
# machine gets in. Run it as `make release`; TARGETS="linux/amd64" builds fewer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${OUT:-dist}
targets=${TARGETS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}

[[ -z $(git status --porcelain) ]] || { echo 'release: the work tree has changes; commit them first, so that the version is true' >&2; exit 1; }
version=$(git describe --tags --match 'v*' 2>/dev/null || echo "v0.0.0-$(git rev-parse --short=12 HEAD)")
SOURCE_DATE_EPOCH=$(git show -s --format=%ct HEAD)
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C CGO_ENABLED=0 GOFLAGS=-trimpath GOTOOLCHAIN=local
umask 022
rm -rf "$out"
mkdir -p "$out"

build() { # OS ARCH FILE
	GOOS=$1 GOARCH=$2 go build -ldflags '-s -w -buildid=' -o "$3" ./cmd/dray
}
build "$(go env GOHOSTOS)" "$(go env GOHOSTARCH)" "$out/own/dray"
for target in $targets; do
	os=${target%/*} arch=${target#*/}
	name=dray-$version-$os-$arch
	dir=$out/$name
	mkdir -p "$dir/completions"
	build "$os" "$arch" "$dir/dray"
	"$out/own/dray" man "$dir/man/man1" >/dev/null
	for shell in bash zsh fish; do "$out/own/dray" completion $shell >"$dir/completions/dray.$shell"; done
	cp -r deploy LICENSE README.md "$dir"
	rm -f "$dir/deploy/release.sh"
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode='u+rw,go+r,go-w' \
		--format=ustar -C "$out" -cf - "$name" | gzip -n -9 >"$out/$name.tar.gz"
	rm -r "$dir"
done
rm -r "$out/own"
(cd "$out" && sha256sum -- *.tar.gz >SHA256SUMS && cat SHA256SUMS)
