{{- define "dray.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dray.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dray.labels" -}}
{{ include "dray.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "dray.tokenSecret" -}}
{{- .Values.token.existingSecret | default (printf "%s-token" (include "dray.name" .)) -}}
{{- end -}}

{{- define "dray.pod" -}}
metadata:
  labels:
    {{- include "dray.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 15
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: dray
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
        - --listen=/ip4/0.0.0.0/tcp/{{ .Values.swarm.port }}
        - --listen=/ip4/0.0.0.0/udp/{{ .Values.swarm.port }}/quic-v1
        {{- range .Values.peers }}
        - --peer={{ . }}
        {{- end }}
      env:
        - {name: DRAY_HOME, value: /data}
        - {name: DRAY_HTTP_LISTEN, value: "0.0.0.0:{{ .Values.http.port }}"}
        - {name: DRAY_HTTP_TOKEN_FILE, value: /etc/dray-token/{{ .Values.token.key }}}
        - {name: DRAY_LOG_FORMAT, value: json}
        - {name: DRAY_FIND_HOSTS, value: "{{ include "dray.name" . }}-swarm:{{ .Values.http.port }}"}
        - {name: DRAY_REACH_LAN, value: "false"}
      ports:
        - {name: http, containerPort: {{ .Values.http.port }}}
        - name: swarm-tcp
          containerPort: {{ .Values.swarm.port }}
          {{- if and (eq .Values.mode "daemonset") .Values.swarm.hostPort }}
          hostPort: {{ .Values.swarm.hostPort }}
          {{- end }}
        - name: swarm-quic
          containerPort: {{ .Values.swarm.port }}
          protocol: UDP
          {{- if and (eq .Values.mode "daemonset") .Values.swarm.hostPort }}
          hostPort: {{ .Values.swarm.hostPort }}
          {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 20
        timeoutSeconds: 5
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: config, mountPath: /data/config.toml, subPath: config.toml, readOnly: true}
        - {name: token, mountPath: /etc/dray-token, readOnly: true}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "dray.name" . }}}
    - name: token
      secret: {secretName: {{ include "dray.tokenSecret" . }}, defaultMode: 0440}
    {{- if eq .Values.mode "daemonset" }}
    - name: data
      hostPath: {path: {{ .Values.storage.hostPath }}, type: Directory}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
