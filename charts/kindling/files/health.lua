-- The health of a DatasetBuild, PretrainRun or AlignmentRun for Argo CD: the chart's README says where it goes.
local health = { status = "Progressing", message = "No operator has seen it yet." }
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return health
end
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Reconciling" and health.status ~= "Degraded" then
    health.message = condition.message
    if condition.status == "False" then
      health.status = status.phase == "Suspended" and "Suspended" or "Healthy"
    end
  end
  if condition.type == "Stalled" and condition.status == "True" then
    health = { status = "Degraded", message = condition.message }
  end
end
return health
