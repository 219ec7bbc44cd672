#!/usr/bin/env bash
# Checks what deploy/ holds with the programs that will read it: Helm, systemd, the shells and man. Run it as `make deploy-check`,
# which installs them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
helm=${HELM:-bin/tools/helm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo 'helm lint'
"$helm" lint --strict deploy/helm/dray >"$work/lint" || { cat "$work/lint"; exit 1; }
render() { "$helm" template t deploy/helm/dray --kube-version 1.31.0 "$@"; }
render >"$work/statefulset"
render --set mode=daemonset,swarm.hostPort=4872 >"$work/daemonset"
render --set metrics.serviceMonitor=true,metrics.dashboard=true,token.existingSecret=mine >"$work/metrics"
has() { grep -q -- "$2" "$work/$1" || { echo "deploy: $1 has no '$2'" >&2; exit 1; }; }
has statefulset 'kind: StatefulSet'
has statefulset 'kind: Secret'
has daemonset 'kind: DaemonSet'
has daemonset 'hostPort: 4872'
has metrics 'kind: ServiceMonitor'
has metrics 'secretName: mine'
has metrics 'grafana_dashboard'
! grep -q 'kind: Secret$' "$work/metrics" || { echo 'deploy: a secret is made beside the one that exists' >&2; exit 1; }
! render --set mode=other >/dev/null 2>&1 || { echo 'deploy: the chart takes any mode' >&2; exit 1; }

echo 'two builds of a release'
head=$(git rev-parse HEAD)
for n in one two; do
	git clone -q . "$work/$n/of/some/path" && git -C "$work/$n/of/some/path" checkout -q "$head"
	TARGETS=linux/amd64 "$work/$n/of/some/path/deploy/release.sh" >"$work/$n.sums"
done
cmp "$work/one.sums" "$work/two.sums" || { cat "$work"/*.sums; exit 1; }
tar -xzf "$work"/one/of/some/path/dist/*.tar.gz -C "$work"
binary=$(echo "$work"/dray-*/dray)
! ldd "$binary" >/dev/null 2>&1 || { echo 'deploy: the binary is not static' >&2; exit 1; }
"$binary" --version

echo 'systemd-analyze verify'
for unit in deploy/systemd/*; do sed "s|/usr/local/bin/dray|$binary|" "$unit" >"$work/${unit##*/}"; done
(cd "$work" && SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no ./*.service ./*.socket) >"$work/verify" 2>&1 ||
	{ cat "$work/verify"; exit 1; }
! grep "$work" "$work/verify" || exit 1

echo 'man pages and completions'
"$binary" man "$work/man" >/dev/null
for page in "$work"/man/*.1; do
	MANWIDTH=200 man --warnings -l "$page" >/dev/null 2>"$work/warnings" </dev/null || { cat "$work/warnings"; exit 1; }
	[[ ! -s $work/warnings ]] || { echo "${page##*/}:"; cat "$work/warnings"; exit 1; }
done
"$binary" completion bash >"$work/dray.bash"
bash -n "$work/dray.bash"
