{{/* Parts of every pod. Each takes a dict: `top` is the chart's scope, `name` the process. */}}

{{- define "evertoken.labels" -}}
app.kubernetes.io/name: evertoken
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "evertoken.meta" -}}
name: {{ .top.Release.Name }}-{{ .name }}
labels:
  {{- include "evertoken.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .top.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .top.Release.Service }}
  helm.sh/chart: {{ .top.Chart.Name }}-{{ .top.Chart.Version }}
{{- end }}

{{/* Nobody special, on a file system that is read-only; the journal keeps the rights that the worker gave it. */}}
{{- define "evertoken.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user | default 10001 }}
  runAsGroup: {{ .user | default 10001 }}
  fsGroup: {{ .user | default 10001 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .top.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .top.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "evertoken.shut" -}}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}

{{/* A container of our image: `command` is a list, `secrets` the keys of the Secret that it reads, `env` more variables.
Every process has the settings, since beat and Flower heed some, such as the namespace; `bare` ones have no page of metrics. */}}
{{- define "evertoken.container" -}}
name: {{ .name }}
image: "{{ .top.Values.image.repository }}:{{ .top.Values.image.tag | default .top.Chart.AppVersion }}"
imagePullPolicy: {{ .top.Values.image.pullPolicy }}
command: {{ toJson .command }}
env:
  {{- range $name, $value := .top.Values.settings }}
  - {name: EVERTOKEN_{{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- if not .bare }}
  - {name: EVERTOKEN_LEASE_SECONDS, value: {{ .top.Values.leaseSeconds | quote }}}
  - {name: EVERTOKEN_METRICS_ADDRESS, value: "0.0.0.0"}
  {{- end }}
  {{- if eq .top.Values.broker "rabbitmq" }}
  - {name: EVERTOKEN_BROKER_URL_FILE, value: /run/secrets/broker_url}
  {{- end }}
  {{- range $name, $value := .env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
{{ include "evertoken.shut" . }}
{{- with .resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: {{ .journal | default "home" }}, mountPath: /var/lib/evertoken}
  - {name: secrets, mountPath: /run/secrets, readOnly: true}
{{- end }}

{{- define "evertoken.volumes" -}}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
{{- if not .journal }}
- {name: home, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
{{- end }}
- name: secrets
  secret:
    secretName: {{ .top.Values.secretName }}
    defaultMode: 0440
    items:
      {{- range .secrets }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
      {{- if eq .top.Values.broker "rabbitmq" }}
      - {key: broker_url, path: broker_url}
      {{- end }}
{{- end }}

{{/* The three kinds of probes, of a page: `port`, `ready` is the path that says whether work is taken. */}}
{{- define "evertoken.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 5
  failureThreshold: 36
readinessProbe:
  httpGet: {path: {{ .ready | default "/healthz" }}, port: {{ .port }}}
  periodSeconds: 15
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 30
  timeoutSeconds: 5
  failureThreshold: 4
{{- end }}

{{- define "evertoken.claim" -}}
volumeClaimTemplates:
  - metadata: {name: journal}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources: {requests: {storage: {{ .size }}}}
{{- end }}
