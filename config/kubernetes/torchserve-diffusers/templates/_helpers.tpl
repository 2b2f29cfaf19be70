{{- define "diffusion.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "diffusion.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "diffusion.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "diffusion.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "diffusion.serviceAccount" -}}
{{- default (ternary (include "diffusion.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* A pool's name in the names of objects: (dict "root" $ "name" NAME). */}}
{{- define "diffusion.poolname" -}}
{{- printf "%s-pool-%s" (include "diffusion.fullname" .root) .name -}}
{{- end -}}

{{/* A pool with what it does not say itself: (dict "root" $ "name" NAME "pool" POOL), as YAML. */}}
{{- define "diffusion.pool" -}}
{{- $pool := mergeOverwrite (deepCopy .root.Values.poolDefaults) .pool -}}
{{- if not $pool.models -}}
{{- fail (printf "pools.%s.models: names no model; each pool serves at least one of `models`" .name) -}}
{{- end -}}
{{- range $pool.models -}}
{{- if not (hasKey $.root.Values.models .) -}}
{{- fail (printf "pools.%s.models: %s is none of `models`" $.name .) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $pool.minReplicas) (int $pool.maxReplicas) -}}
{{- fail (printf "pools.%s.minReplicas: is above maxReplicas" .name) -}}
{{- end -}}
{{- if and (eq .root.Values.autoscaling.mode "hpa") (eq (int $pool.minReplicas) 0) -}}
{{- fail (printf "pools.%s.minReplicas: an HPA does not scale to 0; autoscaling.mode: keda does" .name) -}}
{{- end -}}
{{- if and $pool.schedules (ne .root.Values.autoscaling.mode "keda") -}}
{{- fail (printf "pools.%s.schedules: only autoscaling.mode: keda knows times" .name) -}}
{{- end -}}
{{- if not $pool.registrations -}}
{{- $_ := set $pool "registrations" (max 1 (int $pool.gpus)) -}}
{{- end -}}
{{- toYaml $pool -}}
{{- end -}}

{{/* What objects are found by: (dict "root" $ "component" C "pool" NAME). */}}
{{- define "diffusion.selector" -}}
app.kubernetes.io/name: {{ include "diffusion.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
diffusion.dev/pool: {{ . }}
{{- end }}
{{- end -}}

{{/* All labels, the tags among them: as above, with "models" of a pool. */}}
{{- define "diffusion.labels" -}}
{{ include "diffusion.selector" . }}
app.kubernetes.io/part-of: torchserve-diffusers
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
diffusion.dev/service: {{ .root.Values.tags.service }}
diffusion.dev/environment: {{ .root.Values.tags.environment }}
diffusion.dev/component: {{ .component }}
{{- /* A pod that serves several models belongs to none of them. */}}
{{- if eq (len (.models | default list)) 1 }}
{{- $model := first .models }}
diffusion.dev/model-id: {{ get .root.Values.tags.models $model | default $model }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "image" IMAGE) */}}
{{- define "diffusion.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "diffusion.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# A cache of many files would take minutes to be walked through at each start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "diffusion.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* (dict "root" $ "component" C "pool" NAME) */}}
{{- define "diffusion.spread" -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ . }}
  maxSkew: 1
  # Better together than not at all.
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "diffusion.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "own" NAME "kind" "gateway" or "pool") */}}
{{- define "diffusion.priority" -}}
{{- if .own -}}
{{- .own -}}
{{- else if .root.Values.priorityClasses.create -}}
{{- printf "%s-%s" (include "diffusion.fullname" .root) .kind -}}
{{- end -}}
{{- end -}}

{{/* Redis and object storage for a gateway: secrets by reference, none in any object of the chart. */}}
{{- define "diffusion.gatewayEnvironment" -}}
{{- $redis := .Values.redis -}}
{{- $account := "" -}}
{{- with $redis.passwordSecret }}
{{- if .name }}
{{- $account = printf "%s:$(REDIS_PASSWORD)@" $redis.username }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}
{{- end }}
- name: GATEWAY_STORE_URL
  value: {{ printf "%s://%s%s:%d/%d" (ternary "rediss" "redis" $redis.tls) $account $redis.host (int $redis.port) (int $redis.database) }}
{{- with .Values.storage.region }}
- name: AWS_REGION
  value: {{ . }}
{{- end }}
{{- with .Values.webhookSecret }}
{{- if .name }}
- name: GATEWAY_WEBHOOK_SECRET
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "diffusion.storageEnvironment" -}}
{{- with .Values.storage.secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{/* Settings that API and workers share: (dict "root" $), as YAML. */}}
{{- define "diffusion.settings" -}}
{{- $results := .root.Values.results -}}
{{- $settings := dict
  "host" "0.0.0.0"
  "port" 8000
  "auth" "on"
  "results_url" (required "results.url: where pictures are kept must be said, for example s3://BUCKET/PREFIX" $results.url)
  "results_signed" $results.signed
  "results_public_url" $results.publicUrl
  "public_url" .root.Values.gateway.publicUrl
  "tags_file" "/etc/diffusion/tags.yaml"
  "prices_file" "/etc/diffusion/prices.yaml" -}}
{{- if .root.Values.gateway.budgets -}}
{{- $_ := set $settings "budgets_file" "/etc/diffusion/budgets.yaml" -}}
{{- end -}}
{{- toYaml (merge $settings .root.Values.gateway.settings) -}}
{{- end -}}

{{/* Files that every gateway reads, as entries of a ConfigMap. */}}
{{- define "diffusion.sharedFiles" -}}
tags.yaml: |
  service: {{ .Values.tags.service }}
  environment: {{ .Values.tags.environment }}
  models: {{ toJson .Values.tags.models }}
  components: [api-server, inference-worker, model-storage]
prices.yaml: |
  {{- .Files.Get "files/prices.yaml" | nindent 2 }}
{{- with .Values.gateway.budgets }}
budgets.yaml: |
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where Prometheus finds what a gateway says: as in the rules, by the job's name. */}}
{{- define "diffusion.scrapeLabels" -}}
- {targetLabel: job, replacement: {{ .job }}}
{{- if .pool }}
- {targetLabel: gpu_pool, replacement: {{ .pool }}}
{{- end }}
{{- end -}}
