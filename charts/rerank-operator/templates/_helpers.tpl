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

{{/* The labels of a component's pods. Without the chart's version: a chart that changes nothing about a pod must not
replace it. */}}
{{- define "rerank.podLabels" -}}
{{ include "rerank.selector" . }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: rerank-operator
{{- end }}

{{/* Image tag, shared by the images of one release. */}}
{{- define "rerank.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The image of one component: include "rerank.image" (list . "gateway"). */}}
{{- define "rerank.image" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{ (index $root.Values $component).image | default (printf "%srerank-%s:%s" $root.Values.image.registry $component (include "rerank.tag" $root)) }}
{{- end }}

{{/* Account of one component. */}}
{{- define "rerank.serviceAccount" -}}
{{ (index (index . 0).Values (index . 1)).serviceAccount.name | default (printf "rerank-%s" (index . 1)) }}
{{- end }}

{{/* Metadata of a component's pods. Annotations of the chart's own come third: include "rerank.podMetadata"
(list . "operator" (dict "name" "value")). */}}
{{- define "rerank.podMetadata" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
labels:
  {{- include "rerank.podLabels" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (index . 2) $values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What the pods of both components have in common: account, security, and where they may run. Both watch the API
server, so both have a token. */}}
{{- define "rerank.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
serviceAccountName: {{ include "rerank.serviceAccount" . }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext: {{- include "rerank.podSecurityContext" $root | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels: {{- include "rerank.selector" (list $root $component) | nindent 8 }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Volume of the backend token's Secret. The operator makes it on its first start, unless another one is named. */}}
{{- define "rerank.backendTokenSecret" -}}
{{ .Values.backendToken.existingSecret | default "rerank-backend-token" }}
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

{{/* The built-in catalog, a file for each entry, in JSON, which the operator reads without another library. */}}
{{- define "rerank.catalog" -}}
{{- range $path, $_ := .Files.Glob "files/catalog/*.yaml" }}
{{ base $path | replace ".yaml" ".json" }}: |
  {{- $.Files.Get $path | fromYaml | toPrettyJson | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whom a binding of one component is for. */}}
{{- define "rerank.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "rerank.serviceAccount" . }}
    namespace: {{ (index . 0).Release.Namespace }}
{{- end }}

{{/* Rights of one component on what it watches: a ClusterRole, or a Role in each of watchNamespaces.
include "rerank.grants" (list . "gateway" $rules) where $rules is YAML text. */}}
{{- define "rerank.grants" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $rules := index . 2 -}}
{{- $subjects := include "rerank.subjects" . -}}
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

{{/* Where both components may connect to when their egress is limited: include with .Values.networkPolicies. */}}
{{- define "rerank.commonEgress" -}}
# Names are asked of whichever DNS server the cluster has.
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
- to:
    {{- range .egress.apiServer }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
{{- with .egress.additional }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A list for people: include "rerank.listed" $names. */}}
{{- define "rerank.listed" -}}
{{ . | sortAlpha | join ", " | default "none" }}
{{- end }}

{{/* CEL: whether an image is one of a list, its repository is, or its beginning up to a slash is.
include "rerank.imageIsListed" (list "variables.image" $images). */}}
{{- define "rerank.imageIsListed" -}}
{{- $image := index . 0 -}}
{{ index . 1 | toJson }}.exists(e, {{ $image }} == e || (e.endsWith('/') && {{ $image }}.startsWith(e)) || (({{ $image }}.startsWith(e + ':') || {{ $image }}.startsWith(e + '@')) && !{{ $image }}.substring(e.size()).contains('/')))
{{- end }}

{{/* The binding of an admission policy, for the namespaces that are served: include "rerank.policyBinding" (list . NAME). */}}
{{- define "rerank.policyBinding" -}}
{{- $root := index . 0 -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ index . 1 }}
  labels: {{- include "rerank.labels" (list $root "operator") | nindent 4 }}
spec:
  policyName: {{ index . 1 }}
  validationActions: [Deny]
  {{- with $root.Values.watchNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
  {{- end }}
{{- end }}
