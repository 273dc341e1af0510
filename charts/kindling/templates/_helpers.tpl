{{/* The name of everything: the release's, with the chart's behind it unless it is in there. */}}
{{- define "kindling.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- default $name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The name of what belongs to no namespace. */}}
{{- define "kindling.clusterName" -}}
{{ .Release.Namespace }}-{{ include "kindling.fullname" . }}
{{- end }}

{{- define "kindling.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "kindling.commonLabels" . }}
{{- end }}

{{/* The labels of what has those of a component, which tell the instance, too. */}}
{{- define "kindling.commonLabels" -}}
app.kubernetes.io/part-of: kindling
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the operator's pods; runs let in whoever carries these labels in the operator's namespace. */}}
{{- define "kindling.operatorLabels" -}}
app.kubernetes.io/name: kindling
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "kindling.minioLabels" -}}
app.kubernetes.io/name: minio
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: storage
{{- end }}

{{- define "kindling.serviceAccount" -}}
{{ default (include "kindling.fullname" .) .Values.rbac.serviceAccount }}
{{- end }}

{{/* An image's reference, from a dictionary of: root, registry, name, tag, digest. */}}
{{- define "kindling.image" -}}
{{- $registry := default .registry .root.Values.global.imageRegistry | trimSuffix "/" -}}
{{- $path := ternary (printf "%s/%s" $registry .name) .name (ne $registry "") -}}
{{- if .digest }}{{ $path }}@{{ .digest }}{{ else }}{{ $path }}:{{ .tag }}{{ end -}}
{{- end }}

{{/* The reference of one of Kindling's own images, from a list of: root, the image's key in `images`. */}}
{{- define "kindling.ownImage" -}}
{{- $root := index . 0 -}}
{{- $images := $root.Values.images -}}
{{- $image := index $images (index . 1) -}}
{{- $tag := default $root.Chart.AppVersion $images.tag -}}
{{- include "kindling.image" (dict "root" $root "registry" $images.registry "name" $image.name "tag" $tag "digest" $image.digest) -}}
{{- end }}

{{/* The namespaces watched, as a JSON list; empty means all. */}}
{{- define "kindling.watched" -}}
{{- if and .Values.watch.cluster .Values.watch.namespaces -}}
{{- fail "watch.namespaces and watch.cluster are both given: watch some namespaces, or all of the cluster. Remove one of the two." -}}
{{- end -}}
{{- if .Values.watch.cluster }}[]{{ else }}{{ default (list .Release.Namespace) .Values.watch.namespaces | uniq | toJson }}{{ end -}}
{{- end }}

{{/* Those of them that take something in, as a JSON list. */}}
{{- define "kindling.open" -}}
{{ include "kindling.takingIn" (list . (include "kindling.watched" . | fromJsonArray)) }}
{{- end }}

{{/*
Of namespaces, from a list of: root, their names; as a JSON list: those that take something in, as far as Helm can see.
One that is being deleted does not, nor one that is not there: where it is made later, an upgrade brings what it lacks.
*/}}
{{- define "kindling.takingIn" -}}
{{- $sees := not (empty (lookup "v1" "Namespace" "" (index . 0).Release.Namespace)) -}}
{{- $open := list -}}
{{- range index . 1 -}}
{{- $there := lookup "v1" "Namespace" "" . | default dict -}}
{{- $absent := and $sees (empty $there) -}}
{{- if not (or $absent (dig "metadata" "deletionTimestamp" "" $there)) }}{{ $open = append $open . }}{{ end -}}
{{- end -}}
{{- $open | toJson -}}
{{- end }}

{{/* The default storage as the operator's settings spell it; nothing where there is none. */}}
{{- define "kindling.storage" -}}
{{- $storage := .Values.storage -}}
{{- $own := or $storage.credentials.accessKeyId $storage.credentials.secretAccessKey -}}
{{- if and $own $storage.existingSecret -}}
{{- fail "storage.credentials and storage.existingSecret are both given: the keys come from one place. Remove one of the two." -}}
{{- end -}}
{{- if ne (empty $storage.credentials.accessKeyId) (empty $storage.credentials.secretAccessKey) -}}
{{- fail "storage.credentials holds half a key: give both accessKeyId and secretAccessKey, or neither." -}}
{{- end -}}
{{- if and (not $storage.uri) (or $storage.endpoint $storage.region $own $storage.existingSecret) -}}
{{- fail "storage.uri is missing, and other fields of storage are given. Add it, as in s3://bucket/prefix." -}}
{{- end -}}
{{- if and $storage.namespaces (not .Values.watch.cluster) -}}
{{- fail "storage.namespaces is given without watch.cluster: the Secret goes into the watched namespaces. Remove it." -}}
{{- end -}}
{{- if $storage.uri -}}
{{- $secret := ternary (include "kindling.storageSecret" .) $storage.existingSecret (not (empty $own)) -}}
{{- $all := dict "uri" $storage.uri "endpoint" $storage.endpoint "region" $storage.region "credentialsSecret" $secret -}}
{{- $given := dict -}}
{{- range $field, $value := $all }}{{ if $value }}{{ $_ := set $given $field $value }}{{ end }}{{ end -}}
{{- $given | toJson -}}
{{- else if .Values.minio.enabled -}}
{{- dict "uri" (printf "s3://%s" .Values.minio.bucket) "endpoint" (include "kindling.minioEndpoint" .) "credentialsSecret" (include "kindling.storageSecret" .) | toJson -}}
{{- end -}}
{{- end }}

{{/* The Secret that the chart writes into watched namespaces. */}}
{{- define "kindling.storageSecret" -}}
{{ include "kindling.fullname" . }}-storage
{{- end }}

{{/* The namespaces that Secret is written into, as a JSON list. */}}
{{- define "kindling.storageNamespaces" -}}
{{- if .Values.watch.cluster }}{{ include "kindling.takingIn" (list . (uniq .Values.storage.namespaces)) }}{{ else }}{{ include "kindling.open" . }}{{ end -}}
{{- end }}

{{- define "kindling.minioEndpoint" -}}
http://{{ include "kindling.fullname" . }}-minio.{{ .Release.Namespace }}.svc.{{ .Values.runs.clusterDomain }}:9000
{{- end }}

{{/*
Why MinIO would wait for its volume for ever, as far as Helm can see; nothing where it would not: where a class is named,
there is a default one, or a volume without a class.
*/}}
{{- define "kindling.minioWaits" -}}
{{- if and .Values.minio.enabled .Values.minio.persistence.enabled (not .Values.minio.persistence.storageClass) (lookup "v1" "Namespace" "" "kube-system") -}}
{{- $served := false -}}
{{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items -}}
{{- if eq (dig "metadata" "annotations" "storageclass.kubernetes.io/is-default-class" "" .) "true" }}{{ $served = true }}{{ end -}}
{{- end -}}
{{- range (lookup "v1" "PersistentVolume" "" "").items }}{{ if not (dig "spec" "storageClassName" "" .) }}{{ $served = true }}{{ end }}{{ end -}}
{{- if not $served -}}
This cluster has no default StorageClass, so MinIO waits for its volume for ever: name one in minio.persistence.storageClass (kubectl get storageclass shows which there are), or do without, by minio.persistence.enabled=false.
{{- end -}}
{{- end -}}
{{- end }}

{{/* What every container of the chart may: nothing but run. */}}
{{- define "kindling.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "kindling.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* A node that does not answer must not hold the only operator or store for five minutes. */}}
{{- define "kindling.tolerations" -}}
- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 20}
- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 20}
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end }}
