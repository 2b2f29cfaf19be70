{{/*
What scaling asks Prometheus: (dict "root" $ "name" NAME "pool" POOL). Depths are read from the store by
every gateway alike: max over them, then the sum over models.
*/}}

{{/*
Jobs that wait and that this kind of machine takes, and those that this pool's own workers have in hand; 0
where a gateway says that the store answers and there are none, nothing where nobody knows.
*/}}
{{- define "diffusion.jobsQuery" -}}
{{- $where := printf "namespace=\"%s\",model=~\"%s\"" .root.Release.Namespace (join "|" .pool.models) -}}
{{- $none := printf "0 * max(diffusion_gateway_store_up{namespace=\"%s\"} == 1)" .root.Release.Namespace -}}
(sum(max by (model) (diffusion_gateway_pool_queue_jobs{ {{- $where }},pool="{{ .pool.purchase }}"})) or {{ $none }}) + (sum(diffusion_gateway_jobs_in_hand{namespace="{{ .root.Release.Namespace }}",gpu_pool="{{ .name }}"}) or {{ $none }})
{{- end -}}

{{/*
Steps that the pool's engines still have before them. A worker that died in a living pod keeps the steps that
it had, so those count that have reported within two minutes.
*/}}
{{- define "diffusion.stepsQuery" -}}
{{- $where := printf "namespace=\"%s\",gpu_pool=\"%s\"" .root.Release.Namespace .name -}}
sum(diffusion_pending_steps{ {{- $where }}} and on (instance, model, worker) (time() - diffusion_worker_heartbeat_timestamp_seconds{ {{- $where }}} < 120))
{{- end -}}

{{/* Each pod's mean over its GPUs, added up: divided by pods it is the pool's mean. */}}
{{- define "diffusion.gpuQuery" -}}
sum(avg by (pod) (gpu_utilization_percent{namespace="{{ .root.Release.Namespace }}",gpu_pool="{{ .name }}"}))
{{- end -}}
