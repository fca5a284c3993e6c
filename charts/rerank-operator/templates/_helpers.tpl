{{/* Names are fixed (rerank-operator, rerank-gateway): documentation and clients rely on them, and two releases
in one cluster would fight over the CRDs anyway. */}}

{{/* Labels of the object of one component: include "rerank.labels" (list . "gateway"). */}}
{{- define "rerank.labels" -}}
{{- $root := index . 0 -}}
{{ include "rerank.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: rerank-operator
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* The labels of them that never change: Deployments' selectors are immutable. */}}
{{- define "rerank.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: rerank-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end }}

{{/* Image tag, shared by the images of one release. */}}
{{- define "rerank.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Pod Security "restricted" and a little more, for a pod. 65532 is the user that the images run as. */}}
{{- define "rerank.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The same for a container. */}}
{{- define "rerank.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Probes on the internal port. The startup probe leaves two minutes to a busy node and costs a fast one nothing. */}}
{{- define "rerank.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: internal}
  periodSeconds: 1
  failureThreshold: 120
readinessProbe:
  httpGet: {path: /readyz, port: internal}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: internal}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* nodeSelector and tolerations of operator and gateway pods. */}}
{{- define "rerank.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Rights of one component on what it watches: a ClusterRole, or a Role in each of watchNamespaces.
include "rerank.grants" (list . "gateway" $rules) where $rules is YAML text. */}}
{{- define "rerank.grants" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $rules := index . 2 -}}
{{- $subjects := printf "subjects:\n  - kind: ServiceAccount\n    name: rerank-%s\n    namespace: %s" $component $root.Release.Namespace -}}
{{- if $root.Values.watchNamespaces }}
{{- range $root.Values.watchNamespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: rerank-{{ $component }}
  namespace: {{ . }}
  labels: {{- include "rerank.labels" (list $root $component) | nindent 4 }}
rules: {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: rerank-{{ $component }}
  namespace: {{ . }}
  labels: {{- include "rerank.labels" (list $root $component) | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: rerank-{{ $component }}}
{{ $subjects }}
{{- end }}
{{- else }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: rerank-{{ $component }}
  labels: {{- include "rerank.labels" (list $root $component) | nindent 4 }}
rules: {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: rerank-{{ $component }}
  labels: {{- include "rerank.labels" (list $root $component) | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: rerank-{{ $component }}}
{{ $subjects }}
{{- end }}
{{- end }}
